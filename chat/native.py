"""Conversations for ``POST /api/v1/models/<name>/chat``: the same ones that the chat page shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from channels.db import database_sync_to_async

from chat import services
from gateway import errors
from gateway.native import NEW, registry

Result = TypeVar("Result")


class Conversations:
    async def history(self, user_id: int, conversation: str) -> list[dict[str, str]]:
        if conversation == NEW:
            return []
        return await _in_thread(lambda: services.told_so_far(user_id, services.as_uuid(conversation)))

    async def append(self, user_id: int, conversation: str, model: str, question: str, answer: str) -> str:
        def keep() -> UUID:
            known = None if conversation == NEW else services.as_uuid(conversation)
            return services.keep_turn(user_id, known, model, question, answer)

        return str(await _in_thread(keep))


async def _in_thread(function: Callable[[], Result]) -> Result:
    try:
        result: Result = await database_sync_to_async(function, thread_sensitive=False)()
        return result
    except services.ChatError as error:
        raise errors.invalid(error.message, "conversation") from error


def register() -> None:
    registry.conversations = Conversations()
