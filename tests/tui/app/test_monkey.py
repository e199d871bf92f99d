"""A monkey at the keyboard: random keys, clicks, resizes and engine deaths never crash the app, never lose a message,
and it always ends."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from textual import events
from textual.errors import NoWidget
from vigtui.backends.base import Event
from vigtui.backends.echo import EchoBackend
from vigtui.chat.record import Entry
from vigtui.chat.session import Session
from vigtui.chat.store import Store
from vigtui.core.errors import BackendError

from .conftest import Stage, stage

STEPS = 2_000
KEYS = (
    *("enter",) * 10, *("escape",) * 6, "ctrl+j", "ctrl+n", "ctrl+o", "ctrl+r", "ctrl+t", "ctrl+y", "ctrl+b", "ctrl+l",
    "ctrl+g", "ctrl+s", "ctrl+p", "f1", "f2", "f3", "f4", "f5", "f8", "ctrl+home", "ctrl+end", "pageup", "pagedown",
    "ctrl+up", "up", "down", "left", "right", "tab", "shift+tab", "home", "end", "backspace", "delete", "ctrl+u",
    "ctrl+c", "ctrl+w", "e", "r", "c", "p", "y", "n", "1", "2", "space",
)  # fmt: skip
WORDS = ("lama", "[b]gras", "```py\nx = 1\n```", "- un\n- deux", "\x1b[31m", "0.5", "élève", "**", "<s>", "🦙", "ا")


class Monkey:
    """Plays with a stage, the same way for the same `seed`."""

    def __init__(self, one: Stage, seed: int) -> None:
        self.one, self.random = one, random.Random(seed)
        self.said: dict[str, Entry] = {}
        self.deleted: set[str] = set()

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Remember every message of the user, and every conversation that was deleted with a confirmation."""
        add, delete, stream = Session._add, self.one.desk.delete, EchoBackend.stream

        def adding(session: Session, *arguments: Any) -> Entry:
            entry = add(session, *arguments)
            self.said[entry.id] = entry
            return entry

        def deleting(id: str) -> None:
            self.deleted.add(id)
            delete(id)

        def dying(engine: EchoBackend, *arguments: Any) -> Iterator[Event]:
            left = self.random.choice((1, 3, 1000, 1000))
            for event in stream(engine, *arguments):
                yield event
                left -= 1
                if not left:
                    raise BackendError("The engine process ended unexpectedly (SIGKILL).")

        monkeypatch.setattr(Session, "_add", adding)
        monkeypatch.setattr(self.one.desk, "delete", deleting)
        monkeypatch.setattr(EchoBackend, "stream", dying)

    async def step(self) -> None:
        """Do something."""
        kind = self.random.random()
        if kind < 0.55:
            self.press(self.random.choice(KEYS))
        elif kind < 0.75:
            for character in self.random.choice(WORDS):
                self.press({"\n": "ctrl+j", " ": "space"}.get(character, character), character)
        elif kind < 0.9:
            await self.click()
        elif kind < 0.93:
            size = self.random.choice(((80, 24), (120, 40), (40, 12), (20, 6), (200, 60)))
            await self.one.pilot.resize_terminal(*size)
        else:
            await asyncio.sleep(self.random.random() / 50)

    def press(self, key: str, character: str | None = None) -> None:
        self.one.app.post_message(events.Key(key, character if character and len(key) == 1 else None))

    async def click(self) -> None:
        width, height = self.one.app.size
        place = (self.random.randrange(width), self.random.randrange(height))
        with suppress(NoWidget):  # nothing is drawn there yet
            await self.one.pilot.click(offset=place, times=self.random.choice((1, 1, 2)))

    def check(self) -> None:
        """Nothing that was said is missing on the disk."""
        store = Store()
        for entry in self.said.values():
            if entry.session not in self.deleted:
                assert entry.id in {kept.id for kept in store.messages(entry.session)}


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:.*_watch_selections")  # Textual leaves that one unawaited when an app ends
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_monkey_breaks_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage("**gras**\n\n- un\n- deux\n\n```sh\nls\n```", "encore", context=256) as one:
        monkeypatch.setattr(one.app, "open_url", lambda url: None)
        monkey = Monkey(one, seed)
        monkey.watch(monkeypatch)
        for number in range(STEPS // 2):
            await monkey.step()
            assert one.app._exception is None
            if number % 100 == 99:
                await one.pilot.pause()
                monkey.check()
        while len(one.app.screen_stack) > 1:
            one.app.pop_screen()
            await one.pilot.pause()
        one.app.post_message(events.Key("ctrl+q", None))
        await one.until(lambda: one.app._exit)
    assert one.app._exception is None
    monkey.check()
