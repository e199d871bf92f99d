"""`vigtui serve` in a process of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai

SCRIPT = Path(sys.executable).parent / "vigtui"


@dataclass
class Server:
    """A running server: its address, its process and the file of its stderr."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def client(self, key: str = "EMPTY") -> openai.OpenAI:
        """Give the real client, which must be closed."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def metric(self, name: str, **headers: str) -> float:
        """Give the value of one line of /metrics."""
        page = httpx.get(f"{self.url}/metrics", headers=headers).text
        return float(re.search(rf"^vigtui_{re.escape(name)} (.+)$", page, re.M)[1])  # type: ignore[index]

    def post(self, body: Any, path: str = "/v1/chat/completions", **settings: Any) -> httpx.Response:
        """Send JSON and give the answer."""
        return httpx.post(self.url + path, json=body, timeout=60, **settings)

    def engines(self) -> list[int]:
        """Give the processes of its engines (Linux)."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(word) for task in tasks for word in task.read_text().split()]


@contextlib.contextmanager
def serving(home: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    """Run `vigtui serve ARGUMENTS` on a free port until the end of the block."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / "stderr.log"
    settings = {"VIGTUI_HOME": str(home), "HF_HOME": str(home / "hub"), "LANG": "en_US.UTF-8"} | environment
    command = [str(SCRIPT), "serve", *arguments, "--port", "0"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdout=stderr, env=os.environ | settings)
    try:
        found = until(lambda: process.poll() is not None or re.search(r"(http://\S+)/v1", log.read_text()))
        assert found is not True, log.read_text()
        yield Server(found[1], process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for `condition` and give what it gives; fail when it does not come true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come true")
