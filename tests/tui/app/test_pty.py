"""The app as people have it: the console script in a real pseudo-terminal, from its launch to its end."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pyte
import pytest

from ..conftest import SCRIPT, children


class Terminal:
    """A terminal of 80 × 24 with vigtui in it."""

    def __init__(self, home: Path, *arguments: str) -> None:
        import os

        self.screen = pyte.Screen(80, 24)
        self.stream = pyte.ByteStream(self.screen)
        env = os.environ | {"TERM": "xterm-256color", "VIGTUI_HOME": str(home), "TEXTUAL_ANIMATIONS": "none"}
        self.child = pexpect.spawn(str(SCRIPT), list(arguments), timeout=30, env=env, dimensions=(24, 80))

    @property
    def text(self) -> str:
        """What the screen shows."""
        return "\n".join(self.screen.display)

    def until(self, condition: Callable[[str], bool], seconds: float = 60.0) -> None:
        """Read until the screen fulfils `condition`."""
        deadline = time.monotonic() + seconds
        while not condition(self.text):
            assert time.monotonic() < deadline, self.text
            try:
                self.stream.feed(self.child.read_nonblocking(65536, timeout=0.05))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                assert condition(self.text), self.text

    def end(self) -> int:
        """Read to the end and give the exit code."""
        while self.child.isalive():
            try:
                self.stream.feed(self.child.read_nonblocking(65536, timeout=0.05))
            except (pexpect.TIMEOUT, pexpect.EOF):
                continue
        self.child.close()
        return self.child.exitstatus if self.child.exitstatus is not None else 128 + (self.child.signalstatus or 0)


@pytest.fixture
def open_app(home: Path) -> Iterator[Callable[..., Terminal]]:
    started: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        started.append(Terminal(home, "--backend", "echo", *arguments))
        return started[-1]

    yield start
    for one in started:
        one.child.close(force=True)


def test_from_launch_over_an_answer_to_the_end(open_app: Callable[..., Terminal]) -> None:
    one = open_app()
    one.until(lambda text: "tokens," in text and "vigogneau" in text)
    engines = children(one.child.pid)
    assert engines
    one.child.send("Bonjour **le** monde\r")
    one.until(lambda text: "Bonjour le monde" in text and "tokens/s" in text)
    one.child.send("\x0f")  # ctrl+o
    one.until(lambda text: "Conversations" in text)
    one.child.send("\x1b")
    one.until(lambda text: "Conversations" not in text)
    one.child.send("\x11")  # ctrl+q
    assert one.end() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in engines)

    again = open_app("--continue")
    again.until(lambda text: "Bonjour le monde" in text)
    again.child.send("\x11")
    assert again.end() == 0


def test_what_is_wrong_with_the_flags_is_said_before_the_app_opens(open_app: Callable[..., Terminal]) -> None:
    one = open_app("-m", "no-such-model")
    one.until(lambda text: "no model no-such-model" in text)
    assert one.end() == 3


def test_a_hangup_ends_the_app_and_its_engine(open_app: Callable[..., Terminal]) -> None:
    import signal

    one = open_app()
    one.until(lambda text: "tokens," in text)
    engines = children(one.child.pid)
    one.child.kill(signal.SIGHUP)
    one.end()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in engines) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{pid}").exists() for pid in engines)
