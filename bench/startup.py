"""How long a start takes and what the processes weigh.

    python bench/startup.py [--starts 3]

A service with the starter model in a folder of its own: a first start (tables, static files, administrator; packages and the
model are there already), then further ones. For each: seconds from the command to HTTP ready and to the first token of a real
answer, and the resident memory of each process after ten idle seconds. The time to import what every start must import,
measured in the same run, tells how fast the machine was: the ratio to it is what can be compared between machines.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.running_service import Service, new_service, put_starter_model  # noqa: E402 - its path is known only now

IDLE_SECONDS = 10.0
IMPORTS = "import django, rest_framework, channels, aiohttp, starlette, daphne.server"


def seconds_to_import() -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.perf_counter() - begun


def start(service: Service) -> tuple[float, float]:
    """Seconds from the command to HTTP ready, and to the first token."""
    begun = time.perf_counter()
    with (service.home / "terminal.txt").open("w") as terminal:
        service.process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "serve"],
            env=service.environment,
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with httpx.Client(
        base_url=service.base_url, timeout=120
    ) as client:  # one: making a client costs a core for a while
        while not answers(client):
            if service.process.poll() is not None:
                raise SystemExit(service.output)
            time.sleep(0.02)
        ready = time.perf_counter() - begun
        wait_for_first_token(client, service)
    return ready, time.perf_counter() - begun


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def wait_for_first_token(client: httpx.Client, service: Service) -> None:
    body = {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "Hello!"}], "stream": True}
    body["max_tokens"] = 8
    login = {"username": service.username, "password": service.password}
    headers = {"Authorization": f"Bearer {client.post('/api/v1/auth/login', json=login).json()['access']}"}
    while True:  # the model's entry may be a moment younger than the web server
        with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            if answer.status_code == 200:
                for line in answer.iter_lines():
                    if line.startswith("data: {") and content_of(json.loads(line[6:])):
                        return
        time.sleep(0.05)


def content_of(event: dict[str, object]) -> str:
    choices = event.get("choices")
    return str(choices[0].get("delta", {}).get("content") or "") if isinstance(choices, list) and choices else ""


def weights(service: Service) -> dict[str, float]:
    """Resident megabytes of each process."""
    pids = {**service.pids(), "llama-server": service.engines()[0].pid}
    return {name: psutil.Process(pid).memory_info().rss / 2**20 for name, pid in pids.items()}


def stop(service: Service) -> float:
    assert service.process is not None
    begun = time.perf_counter()
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(timeout=30)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--starts", type=int, default=3, help="starts after the first one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "service"
        put_starter_model(home / "models")
        service = new_service(home)
        imports = statistics.median(seconds_to_import() for _ in range(3))
        print(
            f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores; importing the frameworks takes {imports:.2f} s\n"
        )
        rows = []
        for number in range(options.starts + 1):
            ready, token = start(service)
            if number == options.starts:
                time.sleep(IDLE_SECONDS)
                print_weights(weights(service))
            ended = stop(service)
            rows.append((ready, token))
            name = "first start" if number == 0 else f"start {number + 1}"
            print(f"{name:<14} HTTP ready {ready:5.2f} s   first token {token:5.2f} s   stopped in {ended:4.2f} s")
        ready, token = (statistics.median(column) for column in zip(*rows[1:], strict=True))
        print(f"\nmedian of later starts: HTTP ready {ready:.2f} s ({ready / imports:.1f} × the imports), ", end="")
        print(f"first token {token:.2f} s ({token / imports:.1f} × the imports)")


def print_weights(found: dict[str, float]) -> None:
    print("idle, resident: " + ", ".join(f"{name} {megabytes:.0f} MB" for name, megabytes in found.items()))


if __name__ == "__main__":
    main()
