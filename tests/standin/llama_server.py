#!/usr/bin/env python3
"""A small program that stands in for llama-server: same flags, same answers, and it can be told to misbehave.

Standard library only, so that it starts at once. One "token" is one word. Switches (all optional) come as JSON by
``--switches``, from a file by ``--switches-file`` (read again whenever it changes), or while running by ``POST /standin``:

    load_seconds        /health answers 503 that long
    never_healthy       /health answers 503 for ever
    generate            "ok" | "hang" (takes requests, never answers) | "error" (answers 500)
    crash_at_start      exit code; ends before it listens
    crash_after_requests  dies when that many generation requests were answered
    crash_after_deltas  dies in the middle of a stream, after that many deltas
    cut_after           closes the connection after that many deltas, goes on living
    silent_after        sends that many deltas, then nothing more
    hang_on_term        ignores SIGTERM
    error_status        generation requests are answered with that status, `error_times` times (default: always)
    progress            events that tell how much of the prompt is read, when asked for, spread over first_token_seconds
    pings               comments instead of them, in any stream
    cut_in_prompt       closes the connection after that many of either
    first_token_seconds, token_seconds   how slow it is
    chunks              deltas in an answer (default: 8, or fewer by max_tokens)
    answer, reasoning   the text of the answer instead, and text before it
    log_lines           lines printed on stderr at start
    ignore_key          takes requests without the key
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
import uuid
from pathlib import Path

KEEP_ALIVE_SECONDS = 5
KEEP_ALIVE_REQUESTS = 100
OPEN_PATHS = {"/health", "/v1/health"}
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 500: "Internal Server Error"}


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


class Aborted(Exception):
    """The connection is to be dropped without another word."""


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


class Request:
    def __init__(self, method: str, path: str, headers: dict, body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body
        self.data: dict = {}


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.switches = Switches(options.switches, options.switches_file)
        self.started = time.monotonic()
        self.slots = asyncio.Semaphore(options.parallel)
        self.seen: list[dict] = []
        self.answered = 0
        self.errors_given = 0

    # -- connection ------------------------------------------------------------------------------------------------
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for number in range(1, KEEP_ALIVE_REQUESTS + 1):
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
            self.switches.update(json.loads(request.body))
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
        await answer.send(200, text.encode(), "text/plain; version=0.0.4")

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
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return await self.generate_with(
            request, answer, lambda: {"model": self.model_of(request), "object": "list", "usage": usage, "data": data}
        )

    async def do_chat(self, request: Request, answer: Answer) -> None:
        messages = request.data.get("messages")
        if not isinstance(messages, list):
            return await answer.error(400, "Expected 'messages' to be an array", "invalid_request_error")
        prompt = 3 + sum(len(words(json.dumps(message.get("content", "")))) for message in messages)
        return await self.complete(request, answer, ChatStyle(self.model_of(request)), prompt)

    async def do_completions(self, request: Request, answer: Answer) -> None:
        prompt = len(words(json.dumps(request.data.get("prompt", ""))))
        return await self.complete(request, answer, TextStyle(self.model_of(request)), prompt)

    async def do_native(self, request: Request, answer: Answer) -> None:
        prompt = len(words(json.dumps(request.data.get("prompt", ""))))
        return await self.complete(request, answer, NativeStyle(self.model_of(request)), prompt)

    # -- generation ------------------------------------------------------------------------------------------------
    @property
    def slot_context(self) -> int:
        return self.options.ctx_size // self.options.parallel

    @property
    def busy(self) -> int:
        return sum(1 for entry in self.seen if entry["state"] == "running")

    def model_of(self, request: Request) -> str:
        return request.data.get("model") or self.options.alias

    async def complete(self, request: Request, answer: Answer, style: Style, prompt: int) -> None:
        if prompt >= self.slot_context:
            return await answer.json(too_long(prompt, self.slot_context), 400)
        asked = request.data.get("max_tokens", request.data.get("n_predict"))
        pieces, cut = self.pieces(asked, self.slot_context - prompt)
        style.prompt, style.completion = prompt, len(pieces)
        style.finish = "length" if cut else "stop"
        style.usage_asked = bool((request.data.get("stream_options") or {}).get("include_usage"))
        if request.data.get("stream"):
            return await self.generate_with(request, answer, None, style, pieces)
        reasoning = words(str(self.switches["reasoning"] or ""))
        return await self.generate_with(
            request, answer, lambda: style.whole("".join(pieces), "".join(reasoning)), style, pieces
        )

    def pieces(self, asked: int | None, room: int) -> tuple[list[str], bool]:
        text = self.switches["answer"]
        full = words(text) if text else [f"word{number} " for number in range(self.switches["chunks"] or 8)]
        limit = min(room, asked if asked is not None and asked >= 0 else room)
        return full[:limit], limit < len(full)

    async def generate_with(self, request, answer, whole, style=None, pieces=()) -> None:
        """Takes a slot as the real one does, misbehaves as told, and notes how the request ended."""
        entry = {"path": request.path, "body": request.data, "state": "waiting", "deltas": 0, "time": time.time()}
        entry["headers"] = {name: value for name, value in request.headers.items() if name != "authorization"}
        self.seen.append(entry)
        try:
            async with self.slots:
                entry["state"] = "running"
                if not await self.refused(answer):
                    progress = (request.data.get("return_progress") and self.switches["progress"]) or 0
                    pings = (whole is None and self.switches["pings"]) or 0
                    if not progress and not pings:
                        await self.wait(answer, self.switches["first_token_seconds"] or 0)
                    if whole is not None:
                        await self.wait(answer, (self.switches["token_seconds"] or 0) * len(pieces))
                        await answer.json(whole())
                    else:
                        await answer.begin_stream()
                        await self.read_prompt(answer, style, progress, pings)
                        await self.stream(answer, style, list(pieces), entry)
            entry["state"] = "done"
            self.answered += 1
        finally:
            if entry["state"] != "done":
                entry["state"] = "closed"
        if self.answered == self.switches["crash_after_requests"]:
            crash("told to crash after so many requests")

    async def refused(self, answer: Answer) -> bool:
        mode = self.switches["generate"] or "ok"
        if mode == "hang":
            await self.wait(answer, 1e9)
        status = 500 if mode == "error" else self.switches["error_status"]
        times = self.switches["error_times"]
        if not status or (times is not None and self.errors_given >= times):
            return False
        self.errors_given += 1
        await answer.error(status, "told to answer with an error", "server_error")
        return True

    async def wait(self, answer: Answer, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.02))
            answer.check()

    async def read_prompt(self, answer: Answer, style: Style, progress: int, pings: int) -> None:
        count = pings or progress
        for number in range(count):
            if number == self.switches["cut_in_prompt"]:
                raise Aborted
            if pings:
                await answer.ping()
            else:
                told = {"total": progress, "cache": 0, "processed": number, "time_ms": 1}
                [opening] = style.opening()
                await answer.events([{**opening, "prompt_progress": told}])
            await self.wait(answer, (self.switches["first_token_seconds"] or 0) / count)

    async def stream(self, answer: Answer, style: Style, pieces: list[str], entry: dict) -> None:
        reasoning = words(str(self.switches["reasoning"] or "")) if isinstance(style, ChatStyle) else []
        deltas = [style.reasoning_delta(piece) for piece in reasoning] + [style.delta(piece) for piece in pieces]
        pause = self.switches["token_seconds"] or 0
        limit = min(self.switches[name] or 10**9 for name in ("cut_after", "crash_after_deltas", "silent_after"))
        if not pause and limit > len(deltas):  # as fast as it goes: benches measure the gateway, not this program
            await answer.events([*style.opening(), *deltas, *style.closing()], last=True)
            entry["deltas"] = len(deltas)
            return
        await answer.events(style.opening())
        for number, delta in enumerate(deltas):
            if number >= limit:
                await self.break_off(answer)
            await self.wait(answer, pause)
            await answer.events([delta])
            entry["deltas"] = number + 1
        if limit <= len(deltas):
            await self.break_off(answer)
        await answer.events(style.closing(), last=True)

    async def break_off(self, answer: Answer) -> None:
        if self.switches["crash_after_deltas"]:
            crash("told to crash in the middle of a stream")
        if self.switches["cut_after"]:
            raise Aborted
        await self.wait(answer, 1e9)


ROUTES = {
    ("GET", "/v1/models"): "models",
    ("GET", "/models"): "models",
    ("GET", "/props"): "props",
    ("GET", "/metrics"): "metrics",
    ("POST", "/tokenize"): "tokenize",
    ("POST", "/detokenize"): "detokenize",
    ("POST", "/v1/embeddings"): "embeddings",
    ("POST", "/embeddings"): "embeddings",
    ("POST", "/v1/chat/completions"): "chat",
    ("POST", "/chat/completions"): "chat",
    ("POST", "/v1/completions"): "completions",
    ("POST", "/completion"): "native",
    ("POST", "/completions"): "native",
}


# -- what answers look like ------------------------------------------------------------------------------------------
class Style:
    object_name = ""

    def __init__(self, model: str) -> None:
        self.model = model
        self.id = "chatcmpl-" + uuid.uuid4().hex
        self.created = int(time.time())
        self.prompt = self.completion = 0
        self.finish = "stop"
        self.usage_asked = False

    def base(self, choices: list, name: str) -> dict:
        return {
            "choices": choices,
            "created": self.created,
            "id": self.id,
            "model": self.model,
            "system_fingerprint": "stand-in",
            "object": name,
        }

    def figures(self) -> dict:
        usage = {
            "completion_tokens": self.completion,
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        return {"usage": usage, "timings": timings(self.prompt, self.completion)}

    def opening(self) -> list[dict]:
        return []

    def reasoning_delta(self, text: str) -> dict:
        raise NotImplementedError


class ChatStyle(Style):
    def chunk(self, delta: dict, finish: str | None = None) -> dict:
        return self.base([{"finish_reason": finish, "index": 0, "delta": delta}], "chat.completion.chunk")

    def opening(self) -> list[dict]:
        return [self.chunk({"role": "assistant", "content": None})]

    def delta(self, text: str) -> dict:
        return self.chunk({"content": text})

    def reasoning_delta(self, text: str) -> dict:
        return self.chunk({"reasoning_content": text})

    def closing(self) -> list[dict]:
        last = self.chunk({}, self.finish)
        if not self.usage_asked:
            return [{**last, "timings": self.figures()["timings"]}]
        return [last, {**self.base([], "chat.completion.chunk"), **self.figures()}]

    def whole(self, text: str, reasoning: str) -> dict:
        message = {"role": "assistant", "content": text} | ({"reasoning_content": reasoning} if reasoning else {})
        choice = {"finish_reason": self.finish, "index": 0, "message": message}
        return {**self.base([choice], "chat.completion"), **self.figures()}


class TextStyle(Style):
    def delta(self, text: str, finish: str | None = None) -> dict:
        return self.base([{"text": text, "index": 0, "logprobs": None, "finish_reason": finish}], "text_completion")

    def closing(self) -> list[dict]:
        return [{**self.delta("", self.finish), **self.figures()}]

    def whole(self, text: str, reasoning: str) -> dict:
        return {**self.delta(text, self.finish), **self.figures()}


class NativeStyle(Style):
    def delta(self, text: str) -> dict:
        return {"index": 0, "content": text, "tokens": [], "stop": False, "tokens_evaluated": self.prompt}

    def whole(self, text: str, reasoning: str) -> dict:
        return {
            "index": 0,
            "content": text,
            "tokens": [],
            "stop": True,
            "model": self.model,
            "tokens_predicted": self.completion,
            "tokens_evaluated": self.prompt,
            "timings": timings(self.prompt, self.completion),
        }

    def closing(self) -> list[dict]:
        return [self.whole("", "")]


def timings(prompt: int, completion: int) -> dict:
    return {
        "cache_n": 0,
        "prompt_n": prompt,
        "prompt_ms": 1.0 * prompt,
        "prompt_per_token_ms": 1.0,
        "prompt_per_second": 1000.0,
        "predicted_n": completion,
        "predicted_ms": 10.0 * completion,
        "predicted_per_token_ms": 10.0,
        "predicted_per_second": 100.0,
    }


def too_long(prompt: int, context: int) -> dict:
    message = f"request ({prompt} tokens) exceeds the available context size ({context} tokens), try increasing it"
    error = {"code": 400, "message": message, "type": "exceed_context_size_error"}
    return {"error": {**error, "n_prompt_tokens": prompt, "n_ctx": context}}


def words(text: str) -> list[str]:
    return re.findall(r"\s*\S+(?:\s+\Z)?|\s+\Z", text)


def embedding(text: str) -> list[float]:
    return [((sum(text.encode()) * (index + 7)) % 101 - 50) / 100 for index in range(8)]


# -- HTTP/1.1 --------------------------------------------------------------------------------------------------------
async def read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lines = head.decode("latin-1").split("\r\n")
    method, target, _version = lines[0].split(" ", 2)
    headers = {}
    for line in lines[1:]:
        name, _colon, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await read_body(reader, headers)
    return Request(method, target.partition("?")[0], headers, body)


async def read_body(reader: asyncio.StreamReader, headers: dict) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length") or 0))
    parts = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readline()
    return b"".join(parts)


class Answer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, close: bool) -> None:
        self.reader, self.writer, self.close = reader, writer, close

    def check(self) -> None:
        if self.reader.at_eof() or self.writer.transport.is_closing():
            raise Aborted

    def head(self, status: int, content_type: str, rest: str) -> bytes:
        connection = (
            "Connection: close"
            if self.close
            else f"Keep-Alive: timeout={KEEP_ALIVE_SECONDS}, max={KEEP_ALIVE_REQUESTS}"
        )
        reason = REASONS.get(status, "Status")
        return (
            f"HTTP/1.1 {status} {reason}\r\nServer: llama.cpp\r\nContent-Type: {content_type}\r\n{rest}\r\n{connection}\r\n\r\n"
        ).encode()

    async def send(self, status: int, body: bytes, content_type: str = "application/json; charset=utf-8") -> None:
        self.close = self.close or status >= 400
        self.writer.write(self.head(status, content_type, f"Content-Length: {len(body)}") + body)
        await self.writer.drain()

    async def json(self, data: dict, status: int = 200) -> None:
        await self.send(status, json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode())

    async def error(self, status: int, message: str, kind: str) -> None:
        await self.json({"error": {"message": message, "type": kind, "code": status}}, status)

    async def begin_stream(self) -> None:
        self.writer.write(self.head(200, "text/event-stream", "X-Accel-Buffering: no\r\nTransfer-Encoding: chunked"))

    async def events(self, events: list[dict], last: bool = False) -> None:
        out = []
        for event in events:
            data = b"data: " + json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"
            out.append(b"%x\r\n%s\r\n" % (len(data), data))
        if last:
            out.append(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        self.check()
        self.writer.write(b"".join(out))
        await self.writer.drain()

    async def ping(self) -> None:
        self.check()
        self.writer.write(b"3\r\n:\n\n\r\n")
        await self.writer.drain()


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
