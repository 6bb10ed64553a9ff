#!/usr/bin/env python3
"""A small program that stands in for llama-server: same flags, same answers, and it can be told to misbehave.

Standard library only, so that it starts at once. One "token" is one word. Switches (all optional) come as JSON by
``--switches``, from a file by ``--switches-file`` (read again whenever it changes), or while running by ``POST /standin``,
where ``forget`` empties the list of what it has seen, but for requests under way:

    load_seconds        /health answers 503 that long
    never_healthy       /health answers 503 for ever
    generate            "ok" | "hang" (takes requests, never answers) | "error" (answers 500)
    crash_at_start      exit code; ends before it listens
    crash_after_requests  dies when that many generation requests were answered
    crash_after_deltas  dies in the middle of a stream, after that many deltas
    cut_after           closes the connection after that many deltas, goes on living
    odd_template        makes something else of an answer's beginning than what was written
    refuses_to_go_on    answers 400 to requests that begin with a part of the answer
    error_after         says in the stream that it failed, after that many deltas, and ends it
    half_after          the same in the middle of an event
    garbage_after       ends the stream with events that are none, after that many deltas
    broken              what comes in place of an answer: see broken.py
    counting_broken     the same for the endpoints that need no slot
    trickles            writes its answers byte by byte
    silent_after        sends that many deltas, then nothing more
    hang_on_term        ignores SIGTERM
    error_status        generation requests are answered with that status, `error_times` times (default: always)
    progress            events that tell how much of the prompt is read, when asked for, spread over first_token_seconds
    pings               comments instead of them, in any stream
    error_in_prompt     says in the stream that it failed after that many of either, and ends it
    after_finish        "cut" (closes the connection) | "silent" (nothing more): when an answer's last event was sent
    cut_in_prompt       closes the connection after that many of either
    first_token_seconds, token_seconds   how slow it is
    chunks              deltas in an answer (default: 8, or fewer by max_tokens)
    word_bytes          how long each of them is (default: as short as can be)
    cached              tokens of each prompt that are in the cache already
    answer, reasoning   the text of the answer instead, and text before it
    log_lines           lines printed on stderr at start
    drops_kept          closes kept connections as soon as another request comes by them
    ignore_key          takes requests without the key
    journal             file in which it notes what was read and delivered: see journal.py
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

from broken import BROKEN, STAYS
from journal import Attempt, Journal
from styles import ChatStyle, MessagesStyle, NativeStyle, Style, TextStyle
from wire import KEEP_ALIVE_REQUESTS, KEEP_ALIVE_SECONDS, Aborted, Answer, Request, read_request

FAILURE = {"error": {"code": 500, "message": "told to fail in the middle of a stream", "type": "server_error"}}
STOPS = ("cut_after", "half_after", "crash_after_deltas", "silent_after", "error_after", "garbage_after")
TURN = "assistant: "  # ends what its template makes of a conversation
OPEN_PATHS = {"/health", "/v1/health"}
COUNTING = {"/tokenize", "/detokenize", "/v1/chat/completions/input_tokens", "/v1/messages/count_tokens"}


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-m", "--model", default="")
    parser.add_argument("-a", "--alias", default="stand-in")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-c", "--ctx-size", type=int, default=8192)
    parser.add_argument("-np", "--parallel", type=int, default=4)
    parser.add_argument("--embeddings", "--embedding", action="store_true")
    parser.add_argument("--api-key", default=os.environ.get("LLAMA_API_KEY", ""))
    parser.add_argument("--switches", default="{}")
    parser.add_argument("--switches-file", default="")
    known, _others = parser.parse_known_args(argv)
    return known


class Switches:
    def __init__(self, inline: str, path: str) -> None:
        self._values = json.loads(inline)
        self._path = Path(path) if path else None
        self._seen = 0.0
        self.reread()

    def reread(self) -> None:
        if self._path is None:
            return
        with contextlib.suppress(OSError, json.JSONDecodeError):
            changed = self._path.stat().st_mtime_ns
            if changed != self._seen:
                self._values.update(json.loads(self._path.read_text()))
                self._seen = changed

    def update(self, values: dict) -> None:
        self._values.update(values)

    def __getitem__(self, name: str):
        return self._values.get(name)

    def all(self) -> dict:
        return dict(self._values)


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.switches = Switches(options.switches, options.switches_file)
        self.started = time.monotonic()
        self.slots = asyncio.Semaphore(options.parallel)
        self.seen: list[dict] = []
        self.answered = 0
        self.errors_given = 0
        self.steps = 0  # how often it has computed something
        self.journal = Journal()

    # -- connection ------------------------------------------------------------------------------------------------
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for number in range(1, KEEP_ALIVE_REQUESTS + 1):
                if number > 1 and self.switches["drops_kept"]:
                    await reader.readexactly(1)
                    raise Aborted
                request = await asyncio.wait_for(read_request(reader), KEEP_ALIVE_SECONDS)
                if request is None:
                    break
                answer = Answer(reader, writer, close=number == KEEP_ALIVE_REQUESTS)
                await self.answer(request, answer)
                if answer.close:
                    break
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            pass
        except Aborted:
            writer.transport.abort()
        finally:
            writer.close()

    async def answer(self, request: Request, answer: Answer) -> None:
        self.switches.reread()
        if request.path == "/standin":
            return await self.control(request, answer)
        if request.path in OPEN_PATHS:
            return await self.health(answer)
        key = self.options.api_key
        if key and not self.switches["ignore_key"] and request.headers.get("authorization") != f"Bearer {key}":
            return await answer.error(401, "Invalid API Key", "authentication_error")
        if self.loading:
            return await answer.error(503, "Loading model", "unavailable_error")
        handler = getattr(self, "do_" + ROUTES.get((request.method, request.path), "missing"))
        if request.method == "POST":
            try:
                request.data = json.loads(request.body)
            except ValueError as error:
                message = f"[json.exception.parse_error.101] parse error: {error}"
                return await answer.error(400, message, "invalid_request_error")
            request.attempt = self.journal.attempt(self.switches["journal"], request.body)
        if request.path in COUNTING and await self.breaks(self.switches["counting_broken"], answer):
            return None
        return await handler(request, answer)

    @property
    def loading(self) -> bool:
        return bool(self.switches["never_healthy"]) or (
            time.monotonic() - self.started < (self.switches["load_seconds"] or 0)
        )

    async def health(self, answer: Answer) -> None:
        if self.loading:
            return await answer.error(503, "Loading model", "unavailable_error")
        return await answer.json({"status": "ok"})

    async def control(self, request: Request, answer: Answer) -> None:
        if request.method == "POST":
            told = json.loads(request.body)
            if told.pop("forget", False):
                self.seen = [entry for entry in self.seen if entry["state"] in {"waiting", "running"}]
            if "error_status" in told or "error_times" in told:
                self.errors_given = 0
            self.switches.update(told)
        await answer.json({"seen": self.seen, "switches": self.switches.all(), "pid": os.getpid()})

    # -- endpoints -------------------------------------------------------------------------------------------------
    async def do_missing(self, request: Request, answer: Answer) -> None:
        await answer.error(404, "File Not Found", "not_found_error")

    async def do_models(self, request: Request, answer: Answer) -> None:
        alias, slot_context = self.options.alias, self.slot_context
        data = {"id": alias, "aliases": [alias], "object": "model", "created": int(time.time()), "owned_by": "llamacpp"}
        data["meta"] = {"n_ctx": slot_context, "n_ctx_train": slot_context, "n_params": 1, "size": 1}
        await answer.json({"object": "list", "models": [{"name": alias, "model": alias}], "data": [data]})

    async def do_props(self, request: Request, answer: Answer) -> None:
        settings = {"n_ctx": self.slot_context}
        await answer.json(
            {
                "default_generation_settings": settings,
                "total_slots": self.options.parallel,
                "model_path": self.options.model,
            }
        )

    async def do_metrics(self, request: Request, answer: Answer) -> None:
        text = f"# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing {self.busy}\n"
        text += f"# TYPE llamacpp:n_decode_total counter\nllamacpp:n_decode_total {self.steps}\n"
        await answer.send(200, text.encode(), "text/plain; version=0.0.4")

    async def breaks(self, how: str | None, answer: Answer) -> bool:
        """Whether it did, in place of an answer."""
        if not how:
            return False
        await answer.write(BROKEN[how])
        await self.wait(answer, 1e9 if how in STAYS else 0, works=False)
        answer.close = True
        return True

    async def do_tokenize(self, request: Request, answer: Answer) -> None:
        await answer.json({"tokens": list(range(len(words(str(request.data.get("content", ""))))))})

    async def do_detokenize(self, request: Request, answer: Answer) -> None:
        await answer.json({"content": " ".join(f"word{token}" for token in request.data.get("tokens", []))})

    async def do_embeddings(self, request: Request, answer: Answer) -> None:
        if not self.options.embeddings:
            message = "This server does not support embeddings. Start it with `--embeddings`"
            return await answer.error(501, message, "not_supported_error")
        given = request.data.get("input", "")
        texts = given if isinstance(given, list) else [given]
        tokens = sum(len(words(str(text))) for text in texts)
        data = [
            {"object": "embedding", "index": index, "embedding": embedding(str(text))}
            for index, text in enumerate(texts)
        ]
        return await self.read_only(request, answer, tokens, {"data": data})

    async def do_rerank(self, request: Request, answer: Answer) -> None:
        """The query is read again with each document."""
        query, documents = len(words(str(request.data.get("query", "")))), request.data["documents"]
        tokens = sum(query + len(words(str(document))) for document in documents)
        results = [{"index": index, "relevance_score": 0.5} for index in range(len(documents))]
        return await self.read_only(request, answer, tokens, {"results": results})

    async def read_only(self, request: Request, answer: Answer, tokens: int, found: dict) -> None:
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        style = Style(self.model_of(request))
        style.prompt = tokens
        return await self.generate_with(
            request, answer, lambda: {"model": style.model, "object": "list", "usage": usage, **found}, style
        )

    async def do_chat(self, request: Request, answer: Answer) -> None:
        messages = request.data.get("messages")
        if not isinstance(messages, list):
            return await answer.error(400, "Expected 'messages' to be an array", "invalid_request_error")
        if is_begun(messages) and self.switches["refuses_to_go_on"]:
            return await answer.error(400, "Assistant response prefill is not supported", "invalid_request_error")
        said = words(str(messages[-1].get("content") or "")) if is_begun(messages) else []
        return await self.complete(request, answer, ChatStyle(self.model_of(request)), prompt_of(messages), len(said))

    async def do_messages(self, request: Request, answer: Answer) -> None:
        style = MessagesStyle(self.model_of(request))
        return await self.complete(request, answer, style, prompt_of(request.data["messages"]))

    async def do_input_tokens(self, request: Request, answer: Answer) -> None:
        await answer.json({"object": "response.input_tokens", "input_tokens": prompt_of(request.data["messages"])})

    async def do_template(self, request: Request, answer: Answer) -> None:
        messages = request.data["messages"]
        begun = is_begun(messages)
        if begun and self.switches["refuses_to_go_on"]:
            return await answer.error(400, "Assistant response prefill is not supported", "invalid_request_error")
        said = "".join(f"{message['role']}: {message['content']}\n" for message in messages[: len(messages) - begun])
        odd = "<think></think>" if begun and self.switches["odd_template"] else ""
        return await answer.json({"prompt": said + TURN + odd + (messages[-1]["content"] if begun else "")})

    async def do_completions(self, request: Request, answer: Answer) -> None:
        text = request.data.get("prompt", "")
        prompt = len(words(json.dumps(text)))
        said = len(words(text.rpartition(TURN)[2])) if isinstance(text, str) and TURN in text else 0
        return await self.complete(request, answer, TextStyle(self.model_of(request)), prompt, said)

    async def do_native(self, request: Request, answer: Answer) -> None:
        prompt = len(words(json.dumps(request.data.get("prompt", ""))))
        return await self.complete(request, answer, NativeStyle(self.model_of(request)), prompt)

    async def do_infill(self, request: Request, answer: Answer) -> None:
        extra = [chunk["text"] for chunk in request.data.get("input_extra") or []]
        text = " ".join([*extra, request.data["input_prefix"], request.data["input_suffix"]])
        style = NativeStyle(self.model_of(request))
        style.fields = request.data.get("response_fields") or []
        return await self.complete(request, answer, style, len(words(text)))

    # -- generation ------------------------------------------------------------------------------------------------
    @property
    def slot_context(self) -> int:
        return self.options.ctx_size // self.options.parallel

    @property
    def busy(self) -> int:
        return sum(1 for entry in self.seen if entry["state"] == "running")

    def model_of(self, request: Request) -> str:
        return request.data.get("model") or self.options.alias

    async def complete(self, request: Request, answer: Answer, style: Style, prompt: int, said: int = 0) -> None:
        """``said``: words of the answer that it goes on after."""
        if prompt >= self.slot_context:
            return await answer.json(too_long(prompt, self.slot_context), 400)
        asked = request.data.get("max_tokens", request.data.get("n_predict"))
        pieces, cut = self.pieces(asked, self.slot_context - prompt, said)
        style.prompt, style.completion = prompt, len(pieces)
        style.answers = request.data.get("n") or request.data.get("n_cmpl") or 1
        style.cached = min(self.switches["cached"] or 0, prompt)
        style.prompt_per_second = prompt / (self.switches["first_token_seconds"] or 1e-4)
        style.finish = "length" if cut else "stop"
        style.usage_asked = bool((request.data.get("stream_options") or {}).get("include_usage"))
        if request.data.get("stream"):
            return await self.generate_with(request, answer, None, style, pieces)
        reasoning = words(str(self.switches["reasoning"] or ""))
        return await self.generate_with(
            request, answer, lambda: style.whole("".join(pieces), "".join(reasoning)), style, pieces
        )

    def pieces(self, asked: int | None, room: int, said: int) -> tuple[list[str], bool]:
        text = self.switches["answer"]
        width = (self.switches["word_bytes"] or 1) - 1
        full = (
            words(text)
            if text
            else [f"word{number}".ljust(width, "x") + " " for number in range(self.switches["chunks"] or 8)]
        )
        full = full[said:]
        limit = min(room, asked if asked is not None and asked >= 0 else room)
        return full[:limit], limit < len(full)

    async def generate_with(self, request, answer, whole, style=None, pieces=()) -> None:
        """Takes a slot as the real one does, misbehaves as told, and notes how the request ended."""
        entry = {"path": request.path, "body": request.data, "state": "waiting", "deltas": 0, "time": time.time()}
        entry["headers"] = {name: value for name, value in request.headers.items() if name != "authorization"}
        self.seen.append(entry)
        try:
            async with self.slots:
                entry |= {"state": "running", "waited": time.time() - entry["time"]}
                answer.trickles = bool(self.switches["trickles"])
                if not await self.refused(answer):
                    await self.generate(request, answer, whole, style, list(pieces), entry)
            entry["state"] = "done"
            self.answered += 1
        finally:
            if entry["state"] != "done":
                entry["state"] = "closed"
            request.attempt.note(end=entry["state"])
        if self.answered == self.switches["crash_after_requests"]:
            crash("told to crash after so many requests")

    async def generate(self, request, answer, whole, style, pieces, entry) -> None:
        progress = (request.data.get("return_progress") and self.switches["progress"]) or 0
        pings = (whole is None and self.switches["pings"]) or 0
        if not progress and not pings:
            began = time.monotonic()
            try:
                await self.wait(answer, self.switches["first_token_seconds"] or 0)
            except Aborted:
                request.attempt.note(
                    prompt=min(style.prompt, round(style.prompt_per_second * (time.monotonic() - began)))
                )
                raise
        request.attempt.note(prompt=style.prompt)
        if whole is not None:
            await self.make_whole(request, answer, len(pieces) * style.answers)
            request.attempt.note(answer=len(pieces) * style.answers)
            await answer.json(whole())
        else:
            await answer.begin_stream()
            if await self.read_prompt(answer, style, progress, pings):
                await self.stream(answer, style, pieces, entry, request.attempt)

    async def make_whole(self, request: Request, answer: Answer, tokens: int) -> None:
        for number in range(tokens if self.switches["token_seconds"] else 0):
            try:
                await self.wait(answer, self.switches["token_seconds"])
            except Aborted:
                request.attempt.note(made=number)
                raise

    async def refused(self, answer: Answer) -> bool:
        mode = self.switches["generate"] or "ok"
        if mode == "hang":
            await self.wait(answer, 1e9, works=False)
        if await self.breaks(self.switches["broken"], answer):
            return True
        status = 500 if mode == "error" else self.switches["error_status"]
        times = self.switches["error_times"]
        if not status or (times is not None and self.errors_given >= times):
            return False
        self.errors_given += 1
        await answer.error(status, "told to answer with an error", "server_error")
        return True

    async def wait(self, answer: Answer, seconds: float, works: bool = True) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.02))
            self.steps += works
            answer.check()

    async def read_prompt(self, answer: Answer, style: Style, progress: int, pings: int) -> bool:
        """False: it failed and has said so."""
        count = pings or progress
        for number in range(count):
            if number == self.switches["error_in_prompt"]:
                await answer.events([FAILURE], last=True, done=False)
                return False
            if number == self.switches["cut_in_prompt"]:
                raise Aborted
            if pings:
                await answer.ping()
            else:
                told = {"total": progress, "cache": 0, "processed": number, "time_ms": 1}
                opening = style.opening()[0]
                await answer.events([{**opening, "prompt_progress": told}])
            await self.wait(answer, (self.switches["first_token_seconds"] or 0) / count)
        return True

    async def stream(self, answer, style: Style, pieces: list[str], entry: dict, attempt: Attempt) -> None:
        reasoning = words(str(self.switches["reasoning"] or "")) if isinstance(style, ChatStyle) else []
        deltas = [style.reasoning_delta(piece) for piece in reasoning] + [style.delta(piece) for piece in pieces]
        deltas = style.for_each_answer(deltas)
        limits = [self.switches[name] for name in STOPS]
        limit = min(10**9 if found is None else found for found in limits)
        opening, closing = style.for_each_answer(style.opening()), style.closings()
        after_finish = self.switches["after_finish"]
        if (
            not self.switches["token_seconds"] and limit > len(deltas) and not after_finish
        ):  # as fast as it goes: benches measure the gateway, not this program
            attempt.note(answer=len(deltas))
            await answer.events([*opening, *deltas, *closing], last=True, done=style.says_done)
            entry["deltas"] = len(deltas)
            return
        await answer.events(opening)
        for number, delta in enumerate(deltas):
            if number >= limit:
                await self.break_off(answer)
                return
            await self.wait(answer, self.switches["token_seconds"] or 0)
            attempt.note(answer=1)
            await answer.events([delta])
            entry["deltas"] = number + 1
        if limit <= len(deltas):
            await self.break_off(answer)
            return
        await self.finish(answer, style, closing, after_finish)

    async def finish(self, answer: Answer, style: Style, closing: list[dict], after_finish: str | None) -> None:
        if not after_finish:
            return await answer.events(closing, last=True, done=style.says_done)
        await answer.events([event for event in closing if event.get("choices", True)])
        if after_finish == "cut":
            raise Aborted
        return await self.wait(answer, 1e9)

    async def break_off(self, answer: Answer) -> None:
        if self.switches["crash_after_deltas"]:
            crash("told to crash in the middle of a stream")
        if self.switches["error_after"] is not None:
            return await answer.events([FAILURE], last=True, done=False)
        if self.switches["half_after"]:
            await answer.half_an_event()
            await self.wait(answer, 0.1)
        if self.switches["garbage_after"] is not None:
            return await answer.garbage()
        if self.switches["cut_after"] or self.switches["half_after"]:
            raise Aborted
        return await self.wait(answer, 1e9)


def is_begun(messages: list) -> bool:
    """Whether the last message is the beginning of the answer itself, as ``prefill_assistant`` takes it."""
    return bool(messages) and isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant"


def prompt_of(messages: list) -> int:
    return 3 + sum(len(words(json.dumps(message.get("content", "")))) for message in messages)


ROUTES = {
    ("GET", "/v1/models"): "models",
    ("GET", "/models"): "models",
    ("GET", "/props"): "props",
    ("GET", "/metrics"): "metrics",
    ("POST", "/tokenize"): "tokenize",
    ("POST", "/apply-template"): "template",
    ("POST", "/detokenize"): "detokenize",
    ("POST", "/v1/embeddings"): "embeddings",
    ("POST", "/embeddings"): "embeddings",
    ("POST", "/v1/rerank"): "rerank",
    ("POST", "/v1/chat/completions"): "chat",
    ("POST", "/v1/chat/completions/input_tokens"): "input_tokens",
    ("POST", "/chat/completions"): "chat",
    ("POST", "/v1/completions"): "completions",
    ("POST", "/infill"): "infill",
    ("POST", "/v1/messages"): "messages",
    ("POST", "/v1/messages/count_tokens"): "input_tokens",
    ("POST", "/completion"): "native",
    ("POST", "/completions"): "native",
}


def too_long(prompt: int, context: int) -> dict:
    message = f"request ({prompt} tokens) exceeds the available context size ({context} tokens), try increasing it"
    error = {"code": 400, "message": message, "type": "exceed_context_size_error"}
    return {"error": {**error, "n_prompt_tokens": prompt, "n_ctx": context}}


def words(text: str) -> list[str]:
    return re.findall(r"\s*\S+(?:\s+\Z)?|\s+\Z", text)


def embedding(text: str) -> list[float]:
    return [((sum(text.encode()) * (index + 7)) % 101 - 50) / 100 for index in range(8)]


# -- the process -----------------------------------------------------------------------------------------------------
def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def crash(text: str) -> None:
    log(f"stand-in: {text}")
    os._exit(134)


async def run(options: argparse.Namespace) -> int:
    server = Server(options)
    switches = server.switches
    for line in switches["log_lines"] or []:
        log(line)
    if switches["crash_at_start"]:
        log("stand-in: told to crash at start")
        return int(switches["crash_at_start"])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, lambda: None if server.switches["hang_on_term"] else stop.set()
    )
    try:
        listener = await asyncio.start_server(server.serve, options.host, options.port, limit=64 * 1024 * 1024)
    except OSError as error:
        log(f"couldn't bind HTTP server socket, hostname: {options.host}, port: {options.port}: {error}")
        return 1
    port = listener.sockets[0].getsockname()[1]
    print(f"listening on http://{options.host}:{port}", flush=True)
    await stop.wait()
    os._exit(0)  # at once, like the real one: requests under way are cut


if __name__ == "__main__":
    sys.exit(asyncio.run(run(parse_arguments(sys.argv[1:]))))
