"""What the stand-in writes in place of an answer, by the switches ``broken`` and ``counting_broken``."""

from __future__ import annotations

NOISE = b"\x00\xff<html>no answer at all</html>\r\n\r\n"
OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
# After those in STAYS nothing more comes; the others end the connection.
BROKEN = {
    "closed": b"",
    "noise": NOISE,
    "garbage": OK_HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(NOISE), NOISE),
    "text": OK_HEAD + b"Content-Length: 5\r\n\r\nhello",
    "empty": OK_HEAD + b"Content-Length: 0\r\n\r\n",
    "half": OK_HEAD + b'Content-Length: 33\r\n\r\n{"choices":[{"index":0,"message":{',
    "list": OK_HEAD + b"Content-Length: 4\r\n\r\nnull",
    "short": OK_HEAD + b'Content-Length: 5000\r\n\r\n{"choices":[',
    "half a chunk": OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\ndata: {",
    "wrong chunk": OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\ndata: {}\n\n\r\n0\r\n\r\n",
    "no chunks": OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "half an event": OK_HEAD + b'Transfer-Encoding: chunked\r\n\r\n8\r\ndata: {"\r\n0\r\n\r\n',
    "moved": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "status 999": b"HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\n{}",
    "long head": b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "odd error": b"HTTP/1.1 400 Bad\r\nContent-Length: 72\r\n\r\n"
    + b'{"error":{"type":"exceed_context_size_error","n_prompt_tokens":"many"}} ',
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Ty",
    "an event": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 5000\r\n\r\n"
    + b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n',
    "head": OK_HEAD + b"Content-Length: 5000\r\n\r\n",
    "silence": b"",
}
STAYS = {"an event", "head", "silence"}
