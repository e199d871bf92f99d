"""The server under 1, 4 and 16 clients: ours against `python -m llama_cpp.server`, same file, same threads, one run."""

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import models
from .table import head, row

CLIENTS = (1, 4, 16)
ANSWERS = 48
"""Answers a measurement, shared among the clients; every one of them has the same greedy text."""
BODY = {
    "model": "vigogneau", "prompt": "<|user|>: Comment installer un modèle ?\n<|assistant|>:", "max_tokens": 64,
    "temperature": 0, "stream": True, "repetition_penalty": 1.0, "repeat_penalty": 1.0,
}  # fmt: skip


@contextmanager
def serving(command: list[str]) -> Iterator[int]:
    """Run a server on a free port and give the port once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        settings = os.environ | {"VIGTUI_HOME": home, "HOST": "127.0.0.1"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([*command, "--port", str(port)], env=settings, **quiet)
        try:
            while not _up(port):
                assert process.poll() is None, f"{command} ended"
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()
            process.wait()


def _up(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def ask(port: int) -> tuple[float, int]:
    """Give the seconds to the first token of one answer, and its length in characters."""
    began, first, length = time.perf_counter(), 0.0, 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", "/v1/completions", json.dumps(BODY), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    for line in answer:
        if line.startswith(b"data: {") and (text := json.loads(line[6:])["choices"][0]["text"]):
            first = first or time.perf_counter() - began
            length += len(text)
    connection.close()
    return first, length


def crowd(port: int, clients: int) -> dict[str, float]:
    """Let so many clients ask at once; give characters a second together, and the median wait in seconds."""
    found: list[tuple[float, int]] = []

    def work() -> None:
        for _turn in range(ANSWERS // clients):
            found.append(ask(port))

    threads = [threading.Thread(target=work) for _client in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    waits = statistics.median(first for first, _length in found)
    return {"rate": sum(length for _first, length in found) / seconds, "first": waits}


def measure(command: list[str]) -> list[dict[str, float]]:
    """Give the figures of a server for each number of clients, after one answer that loads the model."""
    with serving(command) as port:
        ask(port)
        return [crowd(port, clients) for clients in CLIENTS]


def main() -> None:
    """Print the table."""
    path = str(models.embedded())
    script = str(Path(sys.executable).parent / "vigtui")
    ours = measure([script, "serve", "vigogneau", "--threads", "1"])
    peer = [sys.executable, "-m", "llama_cpp.server", "--model", path, "--n_threads", "1", "--n_ctx", "1024"]
    theirs = measure([*peer, "--interrupt_requests", "false"])  # else it cuts an answer off when another client asks
    head("clients", "who", "characters/s", "ours ÷ theirs", "first token, ms", "theirs ÷ ours")
    for clients, mine, other in zip(CLIENTS, ours, theirs, strict=True):
        rate, first = mine["rate"] / other["rate"], other["first"] / mine["first"]
        row(
            clients, "vigtui serve", f"{mine['rate']:.0f}", f"{rate:.2f}", f"{mine['first'] * 1000:.1f}", f"{first:.2f}"
        )
        row(clients, "llama_cpp.server", f"{other['rate']:.0f}", "", f"{other['first'] * 1000:.1f}", "")


if __name__ == "__main__":
    main()
