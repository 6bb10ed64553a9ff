"""Which model's pool answers a request, and what its engine is told instead of what the client wrote."""

from __future__ import annotations

from typing import Any

from accounts.callers import Caller
from gateway import errors, naming, system_prompt
from gateway.endpoints import Endpoint
from gateway.models_directory import directory
from gateway.slots import ModelPool
from models_app.selectors import ModelView


async def pools_for(
    caller: Caller, endpoint: Endpoint, body: dict[str, Any], asked: str
) -> tuple[ModelPool, ModelPool | None]:
    """That of the model asked for, and that of the one whose share of its requests this is, if any. What the caller may do is
    said of the first. Raises GatewayError."""
    models = directory()
    pool = await models.pool(asked)
    if pool is None or not caller.sees(*pool.view.names):
        raise errors.model_not_found(asked) if asked else errors.model_missing()
    if not caller.may_use(*pool.view.names):
        raise errors.model_forbidden(asked or pool.view.name)
    name = naming.answering(pool.view, endpoint, body, caller.user_id, models.serves)
    return pool, models.pools.get(name) if name != pool.view.name else None


def fitted(endpoint: Endpoint, body: dict[str, Any], view: ModelView) -> tuple[dict[str, Any], int]:
    """The body with the model's own name, which the answer repeats, and its system prompt; and how many tokens the prompt has
    more at most. The same object when nothing differs."""
    if body.get("model") != view.name:
        body = {**body, "model": view.name}
    if view.system_prompt and system_prompt.belongs_into(endpoint, body):
        return system_prompt.put_into(endpoint, body, view.system_prompt)
    return body, 0
