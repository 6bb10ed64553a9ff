#!/usr/bin/env python3
"""Switching between two models that are loaded when asked for, against the bare start of the same engine.

    python bench/on_demand.py [--size 800] [--rounds 5]

Two models that never run together, of a file with random weights of about that many MB (0: the starter model). One round: the
model that is away is asked for one token, through the service; then the very command line of its engine is started by hand and
asked for one token as soon as it takes requests. The file is in the page cache both times. Prints both medians and their ratio.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
from gguf import GGMLQuantizationType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from models_app.tests.random_models import Shape, random_model  # noqa: E402 - their path is known only now
from tests.ports import free_port  # noqa: E402
from tests.running_service import Service, running, wait_for  # noqa: E402

STARTER = "SmolLM2-135M-Instruct.Q4_1.gguf"
LAYER_MB = 48
BODY = {"prompt": "Hello", "max_tokens": 1, "temperature": 0}


def big_file(folder: Path, megabytes: int) -> str:
    layers = max(1, megabytes // LAYER_MB)
    shape = Shape("llama", GGMLQuantizationType.Q8_0, embedding=2048, heads=32, layers=layers, feed_forward=5632)
    file = random_model(shape)
    shutil.copyfile(file, folder / file.name)
    return file.name


def ask(client: httpx.Client, model: str) -> float:
    began = time.perf_counter()
    answer = client.post("/v1/completions", json={**BODY, "model": model})
    answer.raise_for_status()
    return time.perf_counter() - began


def bare(engine: psutil.Process) -> float:
    """Seconds from its start to its first token."""
    argv, environment = engine.cmdline(), engine.environ()
    port = free_port()
    argv[argv.index("--port") + 1] = str(port)
    key = {"Authorization": f"Bearer {environment['LLAMA_API_KEY']}"}
    began = time.perf_counter()
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=key, timeout=60) as client:
            while not is_up(client):
                time.sleep(0.01)
            client.post("/v1/completions", json=BODY).raise_for_status()
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def measure(service: Service, file: str, rounds: int) -> None:
    with service.client(timeout=300) as client:
        for model in client.get("/api/v1/models").json()["models"]:
            client.delete(f"/api/v1/models/{model['modelName']}").raise_for_status()
        for name in ("one", "two"):
            body = {"modelName": name, "modelFile": file, "contextLength": 1024, "policy": "on_demand", "group": "g"}
            client.post("/api/v1/models", json=body).raise_for_status()
        wait_for(lambda: len(client.get("/v1/models").json()["data"]) == 2, "the gateway to know them")
        ask(client, "one")
        switches, starts = list[float](), list[float]()
        for number in range(rounds):
            time.sleep(max(6.0, 2.2 * max(switches, default=3.0)))  # whatever was loaded stays for a while
            switches.append(ask(client, ("two", "one")[number % 2]))
            starts.append(bare(service.engines()[0]))
    switch, start = statistics.median(switches), statistics.median(starts)
    print(f"{'switch, through the service, to the first token':55}{switch:8.2f} s")
    print(f"{'bare start of the same engine, to the first token':55}{start:8.2f} s")
    print(f"{'ratio':55}{switch / start:8.2f}   (wanted: at most 1.3)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmplatform.settings")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "home") as service:
        file = big_file(service.home / "models", wanted.size) if wanted.size else STARTER
        measure(service, file, wanted.rounds)


if __name__ == "__main__":
    main()
