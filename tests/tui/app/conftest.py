"""The app on a stage: the real screens over a real store, with the echo engine in place of a model."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot
from textual.worker import WorkerCancelled
from vigtui.backends.base import Backend, Generation, LoadOptions
from vigtui.backends.echo import EchoBackend
from vigtui.chat.session import Session
from vigtui.core.progress import Progress
from vigtui.registry.open import files
from vigtui.registry.record import Record
from vigtui.tui.app import VigtuiApp
from vigtui.tui.cli.wish import Wish
from vigtui.tui.desk import Desk
from vigtui.tui.screens.chat import ChatScreen
from vigtui.tui.widgets.prompt import Prompt
from vigtui.tui.widgets.status import Status
from vigtui.tui.widgets.transcript import Transcript


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test to its end."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No animation, no blinking."""
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.setattr("textual.constants.TEXTUAL_ANIMATIONS", "none")


def wish(**flags: Any) -> Wish:
    """Give the flags of a chat with the echo engine."""
    none = dict.fromkeys(("model", "prompt", "system", "persona", "form", "max_memory", "session"))
    given = {"lora": (), "backend": "echo", "generation": Generation(), "loading": LoadOptions()}
    return Wish(**{**none, **given, **flags})  # pyright: ignore


class Engines:
    """Opens echo engines with these `replies` and keeps them."""

    def __init__(self, replies: Sequence[str] = (), delay: float = 0.0, context: int = 1024) -> None:
        self.replies, self.delay, self.context = replies, delay, context
        self.opened: list[EchoBackend] = []
        self.failure: Exception | None = None

    def __call__(self, record: Record, loading: LoadOptions, wanted: str | None, progress: Progress) -> Backend:
        if self.failure is not None:
            raise self.failure
        engine = EchoBackend(self.replies, self.delay, self.context)
        engine.load(files(record), loading, progress)
        self.opened.append(engine)
        return engine

    @property
    def last(self) -> EchoBackend:
        """The engine opened last."""
        return self.opened[-1]


class Stage:
    """A running app and what a test looks at."""

    def __init__(self, app: VigtuiApp, pilot: Pilot[None], engines: Engines) -> None:
        self.app, self.pilot, self.engines = app, pilot, engines
        self.desk = app.desk

    @property
    def session(self) -> Session:
        return self.desk.session

    @property
    def screen(self) -> ChatScreen:
        """The conversation's screen, whatever lies on it."""
        screen = self.app.screen_stack[0]
        assert isinstance(screen, ChatScreen)
        return screen

    @property
    def prompt(self) -> Prompt:
        return self.screen.query_one(Prompt)

    @property
    def transcript(self) -> Transcript:
        return self.screen.query_one(Transcript)

    @property
    def status(self) -> Status:
        return self.screen.query_one(Status)

    @property
    def contents(self) -> list[str]:
        """The texts of the conversation where it stands."""
        return [entry.content for entry in self.session.path()]

    @property
    def drawn(self) -> list[str]:
        """The texts of the messages on the screen."""
        return [turn.entry.content for turn in self.transcript.turns if turn.entry]

    def key(self, key: str) -> None:
        """Press a key without waiting for anything."""
        self.app.post_message(events.Key(key, key if len(key) == 1 else None))

    async def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        """Wait until `condition` holds."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not condition():
            assert self.app._exception is None
            assert asyncio.get_running_loop().time() < deadline, inspect.getsource(condition)
            await asyncio.sleep(0.005)

    async def ready(self) -> None:
        """Wait until a model is loaded and its context is counted."""
        await self.until(lambda: self.desk.engine is not None and not self.screen.loading_now)
        await self.quiet()

    async def quiet(self) -> None:
        """Wait until no answer is on its way, and what would be sent is counted."""
        await self.until(lambda: not self.screen.busy and self.screen._typing is None)
        for worker in [one for one in self.app.workers if one.group in ("count", "turn", "load")]:
            with suppress(WorkerCancelled):  # a newer one has taken its place
                await worker.wait()
        await self.pilot.pause()

    async def say(self, text: str) -> None:
        """Send `text` and wait for the answer."""
        await self.send(text)
        await self.until(lambda: self.session.path()[-1:] and self.session.path()[-1].role == "assistant")
        await self.quiet()

    async def send(self, text: str) -> None:
        """Send `text`."""
        self.prompt.put(text)
        await self.pilot.press("enter")

    async def press(self, *keys: str) -> None:
        """Press keys and wait until they were understood."""
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def opens(self, kind: type) -> Any:
        """Wait until a dialog of `kind` is on top and give it."""
        await self.until(lambda: isinstance(self.app.screen, kind) and self.app.screen.is_mounted)
        return self.app.screen

    async def closes(self) -> None:
        """Wait until no dialog is open."""
        await self.until(lambda: len(self.app.screen_stack) == 1)
        await self.quiet()


@asynccontextmanager
async def stage(
    *replies: str,
    delay: float = 0.0,
    context: int = 1024,
    size: tuple[int, int] = (80, 24),
    **flags: Any,
) -> AsyncIterator[Stage]:
    """Open the app; the engine says `replies` in turn, then what it is told."""
    engines = Engines(replies, delay, context)
    app = VigtuiApp(Desk(wish(**flags), engines))
    async with app.run_test(size=size) as pilot:
        one = Stage(app, pilot, engines)
        await one.ready()
        yield one


@pytest.fixture
def clipboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A desktop's clipboard program that writes to the file given."""
    program, target = tmp_path / "wl-copy", tmp_path / "clipboard.txt"
    program.write_text(f"#!/bin/sh\ncat > {target}.part && mv {target}.part {target}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    return target
