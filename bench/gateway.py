"""What the gateway costs: requests per second and added time to first byte, beside nginx and LiteLLM on one upstream.

    python bench/gateway.py [--seconds 5] [--litellm PATH-OF-ITS-VENV] [--server "ARGUMENTS TO PYTHON"] [--only direct,ours]
    python bench/gateway.py --accounting [--rounds 5] [--seconds 5]

One run measures each way to the same stand-in upstream: direct, through nginx (as a streaming proxy, if installed), through
us (a real web server process with sign-in, hold, fair queue, settlement and usage record on SQLite), through us without
accounting ("free"), through a proxy of a few lines on the same web server ("bare": what Daphne and Python cost by
themselves), and through LiteLLM's proxy without its database. With uvicorn installed, us and the bare proxy on that as well.
Absolute figures belong to the machine; the ratios are what counts. Everything runs in a temporary folder. ``wrk`` generates
the load where it is installed, else a slower generator of our own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
MODEL = "bench"
CASES = [("short", 1), ("short", 32), ("stream", 1), ("stream", 32)]
FIRST_BYTES = 300  # requests measured for the time to first byte
MONEY = 10**15


class BenchError(Exception):
    """One way cannot be measured; the others can."""


@dataclass
class Way:
    """One road to the upstream."""

    name: str
    port: int
    path: str = "/v1/chat/completions"
    token: str = "none"
    rates: dict[tuple[str, int], float] = field(default_factory=dict)
    first_byte_ms: dict[str, float] = field(default_factory=dict)


def body(kind: str) -> str:
    messages = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Is it so? " * 8}]
    return json.dumps({"model": MODEL, "messages": messages, "max_tokens": 128, "stream": kind == "stream"})


@contextlib.contextmanager
def process(command: list[str], log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        child = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=env, start_new_session=True)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def wait_for(way: Way, seconds: float) -> None:
    """Until the whole road answers."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{way.port}{way.path}",
        body("short").encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {way.token}"},
    )
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
                return
        except OSError as error:
            if time.monotonic() > end:
                raise BenchError(f"{way.name} does not answer: {error}") from error
            time.sleep(0.2)


# -- the roads --------------------------------------------------------------------------------------------------------
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream engine {{ server 127.0.0.1:{upstream}; keepalive 64; }}
  server {{ listen 127.0.0.1:{port} backlog=512; location / {{
    proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }}
}}
"""


@contextlib.contextmanager
def through_nginx(folder: Path, upstream: int) -> Iterator[Way]:
    way = Way("nginx", free_port())
    conf = folder / "nginx.conf"
    conf.write_text(NGINX.format(folder=folder, upstream=upstream, port=way.port))
    with process(["nginx", "-c", str(conf)], folder / "nginx.log"):
        yield way


SETUP = """
import sys, django
django.setup()
from django.utils import timezone
from accounts import quota, services
from models_app.models import ModelConfig, Replica
user = services.register_user("bench", "long-enough-for-a-bench", "bench@example.org", "")
quota.top_up(quota.ensure_wallet(user), {money})
model = ModelConfig.objects.create(name="{model}", file="none.gguf", max_tokens=512)
Replica.objects.create(model=model, number=1, node="bench", state="ready", since=timezone.now(), port={upstream},
                       slots=2000, context_length=8192, key_nonce="bench")
print(services.token_pair(user)[0])
"""


@contextlib.contextmanager
def through_us(folder: Path, upstream: int, server: str, name: str = "ours") -> Iterator[Way]:
    way = Way(name, free_port())
    home = folder / f"home-{name}"
    home.mkdir()
    secrets = "".join(f"{name}={os.urandom(32).hex()}\n" for name in ("JWT_SECRET", "SECRET_KEY"))
    (home / ".env").write_text(secrets + "ALLOWED_HOSTS=127.0.0.1,localhost\n")
    env = {**os.environ, "LLM_HOME": str(home), "DJANGO_SETTINGS_MODULE": "llmplatform.settings"}
    env["PYTHONPATH"] = str(ROOT)
    run = {"cwd": ROOT, "env": env, "check": True}
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], **run)  # type: ignore[call-overload]
    setup = SETUP.format(money=MONEY, model=MODEL, upstream=upstream)
    told = subprocess.run([sys.executable, "-c", setup], capture_output=True, text=True, **run)  # type: ignore[call-overload]
    way.token = told.stdout.split()[-1]
    env |= {"SERVER_PORT": str(way.port), "SERVER_HOST": "127.0.0.1"}
    command = [part.format(port=way.port) for part in server.split()]
    with process([sys.executable, *command], folder / f"{name}.log", env):
        yield way


def uvicorn_options() -> str:
    """Arguments to Python: the documented way to run us on it."""
    return "-m uvicorn llmplatform.asgi:application --host 127.0.0.1 --port {port} --lifespan off --no-access-log"


@contextlib.contextmanager
def through_bare(folder: Path, upstream: int, server: str) -> Iterator[Way]:
    way = Way(f"bare, {server}", free_port())
    home = folder / f"home-bare-{server}"
    home.mkdir()
    (home / ".env").write_text("ALLOWED_HOSTS=127.0.0.1\n")
    script = str(ROOT / "bench" / "bare_proxy.py")
    with process(
        [sys.executable, script, server, str(way.port), str(upstream)],
        folder / f"{server}.log",
        {**os.environ, "LLM_HOME": str(home)},
    ):
        yield way


@contextlib.contextmanager
def through_litellm(folder: Path, upstream: int, venv: Path) -> Iterator[Way]:
    way = Way("LiteLLM", free_port())
    base = f"http://127.0.0.1:{upstream}/v1"
    model = {"model_name": MODEL, "litellm_params": {"model": f"openai/{MODEL}", "api_base": base, "api_key": "none"}}
    conf = folder / "litellm.yaml"
    conf.write_text(json.dumps({"model_list": [model]}))
    command = [str(venv / "bin" / "litellm"), "--config", str(conf), "--port", str(way.port), "--host", "127.0.0.1"]
    way.token = "sk-" + os.urandom(24).hex()  # it does not start without a key
    env = {
        **os.environ,
        "LITELLM_MASTER_KEY": way.token,
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    with process(command, folder / "litellm.log", env):
        yield way


# -- measuring --------------------------------------------------------------------------------------------------------
LUA = """
wrk.method = "POST"
wrk.body = [==[{body}]==]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {token}"
done = function(summary, latency)
  io.write(string.format("RESULT %d %d %d %d\\n", summary.requests, summary.duration,
           summary.errors.status, summary.errors.read + summary.errors.connect + summary.errors.timeout))
end
"""


def rate(way: Way, kind: str, clients: int, seconds: int, folder: Path) -> float:
    """Answers per second."""
    if shutil.which("wrk") is None:
        return asyncio.run(own_rate(way, kind, clients, seconds))
    script = folder / "load.lua"
    script.write_text(LUA.format(body=body(kind), token=way.token))
    url = f"http://127.0.0.1:{way.port}{way.path}"
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script), url]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = next(line for line in told.splitlines() if line.startswith("RESULT"))
    requests, microseconds, refused, broken = map(int, line.split()[1:])
    if refused or broken:
        raise BenchError(f"{way.name}, {kind}: {refused} refused, {broken} broken of {requests}")
    return requests / microseconds * 1e6


def _message(way: Way, kind: str) -> bytes:
    text = body(kind).encode()
    head = f"POST {way.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {way.token}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text


async def own_rate(way: Way, kind: str, clients: int, seconds: float) -> float:
    end = time.monotonic() + seconds

    async def client() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
        count, message = 0, _message(way, kind)
        while time.monotonic() < end:
            writer.write(message)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"chunked" in head:
                await reader.readuntil(b"\r\n0\r\n\r\n")
            else:
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            count += 1
        writer.close()
        return count

    return sum(await asyncio.gather(*[client() for _ in range(clients)])) / seconds


def first_byte_ms(way: Way, kind: str) -> float:
    """Median over requests one after the other, from sending to the first byte of the answer's body."""
    message, times = _message(way, kind), []
    with socket.create_connection(("127.0.0.1", way.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(FIRST_BYTES):
            began = time.perf_counter()
            connection.sendall(message)
            data = b""
            while (end := data.find(b"\r\n\r\n")) < 0 or len(data) == end + 4:
                data += connection.recv(65536)
            times.append(time.perf_counter() - began)
            _read_rest(connection, data, end + 4)
    return statistics.median(times) * 1000


def _read_rest(connection: socket.socket, data: bytes, start: int) -> None:
    head = data[:start].lower()
    if b"chunked" in head:
        while not data.endswith(b"\r\n0\r\n\r\n"):
            data += connection.recv(65536)
    else:
        total = start + int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        while len(data) < total:
            data += connection.recv(65536)


def measure(way: Way, seconds: int, folder: Path) -> Way:
    wait_for(way, 120)
    for kind in ("short", "stream"):
        rate(way, kind, 8, 1, folder)  # warm
        way.first_byte_ms[kind] = first_byte_ms(way, kind)
    for kind, clients in CASES:
        way.rates[kind, clients] = rate(way, kind, clients, seconds, folder)
    print(f"  {way.name} measured", file=sys.stderr)
    return way


def accounting(folder: Path, upstream: int, options: argparse.Namespace) -> None:
    """Both servers run all the time and are asked in turns, so that whatever else the machine does is fair to both."""
    bare = "bench/web_without_accounting.py"
    with (
        through_us(folder, upstream, options.server) as ours,
        through_us(folder, upstream, bare, "no accounting") as without,
    ):
        for way in (ours, without):
            wait_for(way, 120)
        print(f"{'answers/s, accounting':<24}{'on':>10}{'off':>10}{'on / off':>10}{'lowest':>10}{'highest':>10}")
        for kind, clients in CASES:
            rounds = []
            for number in range(options.rounds + 1):
                on, off = (rate(way, kind, clients, options.seconds, folder) for way in (ours, without))
                if number:  # the first one warms up
                    rounds.append((on, off))
            on, off = (statistics.median(column) for column in zip(*rounds, strict=True))
            each = [one / other for one, other in rounds]
            ratio = statistics.median(each)
            title = f"{kind} c={clients}"
            print(f"{title:<24}{on:>10.0f}{off:>10.0f}{ratio:>10.2f}{min(each):>10.2f}{max(each):>10.2f}", flush=True)


# -- telling ----------------------------------------------------------------------------------------------------------
def table(ways: list[Way]) -> None:
    titles = [f"{kind} c={clients}" for kind, clients in CASES]
    print(
        f"{'answers/s':<14}"
        + "".join(f"{title:>14}" for title in titles)
        + f"{'first byte, c=1: short':>26}{'stream':>10}"
    )
    for way in ways:
        rates = "".join(f"{way.rates[case]:>14.0f}" for case in CASES)
        print(f"{way.name:<14}{rates}{way.first_byte_ms['short']:>23.2f} ms{way.first_byte_ms['stream']:>7.2f} ms")


def ratios(ways: list[Way]) -> None:
    by_name = {way.name: way for way in ways}
    ours = by_name.get("ours")
    for base in ("nginx", "LiteLLM", "ours"):
        if (other := by_name.get(base)) is None:
            continue
        for way in ways:
            if way is not other and way.name.startswith(("ours", "free", "bare")):
                parts = [f"{kind} c={c}: {way.rates[kind, c] / other.rates[kind, c]:.2f}" for kind, c in CASES]
                print(f"{way.name + ' / ' + base:<24} " + "   ".join(parts))
    if ours is not None and "direct" in by_name:
        for kind in ("short", "stream"):
            added = ours.first_byte_ms[kind] - by_name["direct"].first_byte_ms[kind]
            print(f"added time to first byte, 1 client, {kind}: {added:.2f} ms (median)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5, help="per measurement")
    parser.add_argument("--litellm", type=Path, help="folder of a virtual environment with litellm[proxy]")
    parser.add_argument("--server", default="manage.py web", help="arguments to Python; {port} is filled in")
    parser.add_argument(
        "--only",
        default="direct,nginx,ours,free,bare,uvicorn,free-uvicorn,bare-uvicorn,litellm",
        help="which ways, with commas between",
    )
    parser.add_argument("--accounting", action="store_true", help="only: what holds, settlements and records cost us")
    parser.add_argument("--rounds", type=int, default=5, help="of --accounting")
    options = parser.parse_args()
    upstream = free_port()
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        stack.enter_context(
            process([sys.executable, str(ROOT / "bench" / "upstream.py"), str(upstream)], folder / "up.log")
        )
        if options.accounting:
            accounting(folder, upstream, options)
            return
        roads = {
            "direct": lambda: contextlib.nullcontext(Way("direct", upstream)),
            "nginx": lambda: through_nginx(folder, upstream),
            "ours": lambda: through_us(folder, upstream, options.server),
            "free": lambda: through_us(folder, upstream, "bench/web_without_accounting.py", "ours, free"),
            "bare": lambda: through_bare(folder, upstream, "daphne"),
            "uvicorn": lambda: through_us(folder, upstream, uvicorn_options(), "ours, uvicorn"),
            "free-uvicorn": lambda: through_us(
                folder, upstream, "bench/web_without_accounting.py uvicorn {port}", "free, uvicorn"
            ),
            "bare-uvicorn": lambda: through_bare(folder, upstream, "uvicorn"),
            "litellm": lambda: through_litellm(folder, upstream, options.litellm),
        }
        uvicorn = importlib.util.find_spec("uvicorn")
        found = {
            "nginx": shutil.which("nginx"),
            "litellm": options.litellm,
            "uvicorn": uvicorn,
            "free-uvicorn": uvicorn,
            "bare-uvicorn": uvicorn,
        }
        ways = []
        for name in options.only.split(","):
            if found.get(name, True):
                try:
                    with roads[name]() as way:
                        ways.append(measure(way, options.seconds, folder))
                except BenchError as error:
                    print(error, file=sys.stderr)
        table(ways)
        ratios(ways)


if __name__ == "__main__":
    main()
