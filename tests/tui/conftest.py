"""The command line as its users have it: the installed console script in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from ..hub.fixture import hub as hub
from ..tiny import write_gguf

SCRIPT = Path(sys.executable).parent / "vigtui"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a GGUF file with random weights."""
    return str(write_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf"))


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a GGUF file that talks until it is stopped: 65,536 tokens take it many seconds."""
    return str(write_gguf(tmp_path_factory.mktemp("endless") / "endless.gguf", context=65536))


@pytest.fixture
def run(home: Path) -> Run:
    """Run `vigtui ARGUMENTS`: nothing on stdin but `input`, stdout and stderr are pipes."""

    def run(*arguments: str, input: str | bytes | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        data = input.encode() if isinstance(input, str) else input
        stdin = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
        done = subprocess.run(
            [SCRIPT, *arguments], capture_output=True, timeout=120, env=os.environ | environment, **stdin
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def terminal(home: Path) -> Iterator[Callable[..., "pexpect.spawn[str]"]]:
    """Start `vigtui ARGUMENTS` in a pseudo-terminal."""
    started: list[pexpect.spawn[str]] = []

    def start(*arguments: str, **environment: str) -> "pexpect.spawn[str]":
        env = os.environ | {"TERM": "dumb", "NO_COLOR": "1"} | environment
        child = pexpect.spawn(str(SCRIPT), list(arguments), encoding="utf-8", timeout=60, env=env, dimensions=(40, 200))
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


def children(pid: int) -> list[int]:
    """Give the processes that `pid` started and that still run (Linux)."""
    return [
        int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
    ]
