"""The websocket ``/ws/chat``: thin. Says who is there, reads what they say, calls, and lets a feed answer.

Nothing here owns an answer: a socket that goes away takes nothing with it. Every id from a client is looked up through its
owner, and before each message the caller is looked at again, so that logging out, being blocked, another group or a narrowed key
take effect on open sockets.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.db import Error as DatabaseError
from django.http import HttpRequest, parse_cookie
from django.utils import translation
from django.utils.translation import gettext as _

from accounts.callers import Caller, NotAllowed, NotAuthenticated, caller_from_bearer, caller_from_session
from accounts.models import Scope
from accounts.standing import Presence
from chat import client_messages, origin, selectors, services
from chat.client_messages import Authenticate, Regenerate, Resume, Send, Stop, Watch
from chat.feed import Feed, Overflow
from chat.generation import Generation, generations
from chat.live import Cursor, Event, live
from chat.lookout import lookout
from chat.models import Message
from chat.recordings import follow, recording_of
from chat.services import ChatError, Exchange, NotFound

logger = logging.getLogger(__name__)

AUTHENTICATE_WITHIN = 10.0  # seconds
LOOK_AGAIN_EVERY = 60.0  # seconds, at whether the caller's time is over; changes are seen by the lookout

# Close codes: 4000 and above are ours to define (RFC 6455).
NOT_AUTHENTICATED, WRONG_ORIGIN, TOO_SLOW = 4401, 4403, 4408


class ChatConsumer(AsyncWebsocketConsumer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.feed = Feed(live)
        self.tasks: set[asyncio.Task[None]] = set()
        self.caller: Caller | None = None
        self.token = ""
        self.session_key = ""

    # -- coming and going ----------------------------------------------------------------------------------------------
    async def connect(self) -> None:
        host, came_from = (origin.header(self.scope["headers"], name) for name in (b"host", b"origin"))
        if not origin.host_is_ours(host) or (came_from and not origin.is_same_site(came_from, host)):
            await self.close(WRONG_ORIGIN)
            return
        # Only pages bring cookies without meaning to, and a page always tells its origin.
        self.session_key = self._cookies().get(settings.SESSION_COOKIE_NAME, "") if came_from else ""
        self.caller = await self._present_caller()
        self._speak_their_language()
        await self.accept()
        self._in_background(self._feed_socket())
        self._in_background(self._look_at_caller())
        lookout.add(self)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """For as long as the socket lives."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def disconnect(self, code: int) -> None:
        lookout.remove(self)
        for task in list(self.tasks):
            task.cancel()
        self.feed.close()

    async def _feed_socket(self) -> None:
        try:
            await self.feed.send_all(self._send)
        except Overflow:
            await self.close(TOO_SLOW)

    async def _send(self, event: Event) -> None:
        await self.send(text_data=json.dumps(event, ensure_ascii=False))

    # -- who is there --------------------------------------------------------------------------------------------------
    async def _present_caller(self) -> Caller | None:
        with suppress(NotAuthenticated, NotAllowed):
            if self.token:
                return await self._caller_of(self.token)
            if self.session_key:
                return await caller_from_session(self.scope["headers"], "GET")
        return None

    async def _caller_of(self, token: str) -> Caller:
        """A key needs the scope for using models."""
        client = self.scope.get("client")
        caller = await caller_from_bearer(token, str(client[0]) if client else "")
        if not caller.has_scope(Scope.INFERENCE):
            raise NotAllowed
        return caller

    async def _look_at_caller(self) -> None:
        """Ends the socket of somebody who did not say who they are in time, or whose time is over."""
        await asyncio.sleep(AUTHENTICATE_WITHIN)
        while True:
            try:
                if await self._renewed_caller() is None:
                    break
            except DatabaseError:
                logger.exception("a chat user could not be looked up")
            await asyncio.sleep(LOOK_AGAIN_EVERY)
        await self._cut_off()

    # What the lookout asks of a listener.
    def presence(self) -> Presence | None:
        caller = self.caller
        if caller is None:
            return None
        return Presence(caller.user_id, caller.key_id, "" if self.token else self.session_key)

    async def look_again(self) -> None:
        if await self._renewed_caller() is None:
            self._in_background(self._cut_off())  # a socket that takes nothing must not keep the lookout waiting

    async def _renewed_caller(self) -> Caller | None:
        """Who is there, with the rights of now. None: nobody, or they may no longer be here, or somebody else came in."""
        before, present = self.caller, await self._present_caller()
        if before is None or present is None or present.user_id != before.user_id:
            return None
        self.caller = present
        return present

    async def _cut_off(self) -> None:
        lookout.remove(self)
        self.feed.close()
        error = ChatError("invalid_api_key", _("Log in first: the session or token is missing, wrong or expired."))
        await self._send(_error_event(error))
        await self.close(NOT_AUTHENTICATED)

    def _cookies(self) -> dict[str, str]:
        return parse_cookie(origin.header(self.scope["headers"], b"cookie"))

    def _speak_their_language(self) -> None:
        """The one they chose, else the browser's; for what this socket's task says."""
        request = HttpRequest()
        request.COOKIES = self._cookies()
        request.META["HTTP_ACCEPT_LANGUAGE"] = origin.header(self.scope["headers"], b"accept-language")
        chosen = self.caller.language if self.caller else ""
        translation.activate(chosen or translation.get_language_from_request(request))

    # -- what they say -------------------------------------------------------------------------------------------------
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        client_id = ""
        try:
            fields = client_messages.parse(text_data)
            client_id = client_messages.client_id_of(fields)
            await self._take(client_messages.read(fields))
        except ChatError as refusal:
            self.feed.tell(_error_event(refusal, client_id))
        except Exception:  # the edge of the loop: one message that goes wrong must not end the socket
            logger.exception("a chat message failed")
            failure = ChatError("internal_error", _("Something went wrong here; the log says what."), retry=True)
            self.feed.tell(_error_event(failure, client_id))

    async def _take(self, message: client_messages.ClientMessage) -> None:
        """Authenticate is for anyone; everything else for users, about what is theirs."""
        if isinstance(message, Authenticate):
            await self._authenticate(message)
            return
        caller = await self._renewed_caller()
        if caller is None:
            await self._cut_off()
            return
        match message:
            case Send():
                await self._ask(caller, message)
            case Regenerate():
                await self._ask_again(caller, message)
            case Stop():
                await self._stop(caller, message)
            case Resume():
                await self._resume(caller, message)
            case Watch():
                await self._watch(caller, message)

    async def _authenticate(self, message: Authenticate) -> None:
        """Also for a new token before the old one runs out; never for becoming somebody else."""
        try:
            caller = await self._caller_of(message.token)
        except (NotAuthenticated, NotAllowed):
            await self._cut_off()
            return
        if self.caller is not None and self.caller.user_id != caller.user_id:
            raise ChatError("permission_denied", _("This connection belongs to another user."))
        self.token, self.caller = message.token, caller
        self._speak_their_language()

    async def _ask(self, caller: Caller, message: Send) -> None:
        answer = uuid.uuid4()
        live.reserve(answer, caller.user_id)
        try:
            exchange = await database_sync_to_async(services.ask)(
                caller.user_id, message.conversation, message.model, message.content, answer
            )
            self._begin(exchange, caller, message)
        except BaseException:
            live.release(answer)
            raise

    async def _ask_again(self, caller: Caller, message: Regenerate) -> None:
        answer = uuid.uuid4()
        live.reserve(answer, caller.user_id)
        try:
            exchange = await database_sync_to_async(services.ask_again)(
                caller.user_id, message.message, answer, message.model
            )
            self._begin(exchange, caller, message)
        except BaseException:
            live.release(answer)
            raise

    def _begin(self, exchange: Exchange, caller: Caller, message: Send | Regenerate) -> None:
        accepted = {
            "type": "accepted",
            "client_id": message.client_id,
            "conversation": str(exchange.conversation),
            "title": exchange.title,
            "question": str(exchange.question),
            "message": str(exchange.answer),
            "model": exchange.model,
            # For the other tabs, which have not seen it typed.
            "content": exchange.content,
            "regenerates": str(message.message) if isinstance(message, Regenerate) else None,
        }
        self.feed.subscribe(exchange.conversation)
        language = translation.get_language() or "en"
        generations.start(Generation(exchange, caller, message.params, language), accepted)

    async def _stop(self, caller: Caller, message: Stop) -> None:
        """Nothing to do when it has ended meanwhile: its own events say so."""
        found = await self._message(caller, message.message)
        if not generations.stop(found.id):
            await database_sync_to_async(services.stop_elsewhere)(found)

    async def _resume(self, caller: Caller, message: Resume) -> None:
        found = await self._message(caller, message.message)
        if found.role != Message.Role.ASSISTANT:
            raise NotFound
        recording = live.get(found.id) or await database_sync_to_async(recording_of)(found)
        self.feed.subscribe(found.conversation_id)
        self.feed.follow(recording, Cursor(seq=message.after))
        if recording.ending is None and live.get(found.id) is None:
            self._in_background(follow(recording, live))

    async def _watch(self, caller: Caller, message: Watch) -> None:
        await database_sync_to_async(selectors.conversation)(caller.user_id, message.conversation)
        self.feed.subscribe(message.conversation)
        running = [found for found in live.in_conversation(message.conversation) if found.ending is None]
        self.feed.tell(
            {
                "type": "watching",
                "conversation": str(message.conversation),
                "running": [str(recording.message) for recording in running],
            }
        )
        for recording in running:
            if not self.feed.is_following(recording.message):
                self.feed.follow(recording, recording.cursor_for_newcomer())

    async def _message(self, caller: Caller, message_id: uuid.UUID) -> Message:
        found: Message = await database_sync_to_async(services.message_of)(caller.user_id, message_id)
        return found


def _error_event(error: ChatError, client_id: str = "") -> dict[str, Any]:
    event = {"type": "error", "code": error.code, "message": error.message, "retry": error.retry}
    return {**event, "client_id": client_id} if client_id else event
