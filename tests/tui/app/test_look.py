"""How every screen looks, at two sizes and in both themes: `VIGTUI_SNAPSHOTS=1 pytest …` takes the pictures anew."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from vigtui.backends.base import Generation
from vigtui.chat.record import Entry, Stamp
from vigtui.chat.session import Session
from vigtui.chat.store import Store
from vigtui.registry import builtin
from vigtui.registry import plan as planning
from vigtui.registry.detail import Detail
from vigtui.registry.order import Order
from vigtui.registry.record import File, Record
from vigtui.registry.reference import Reference
from vigtui.tui.app import THEMES
from vigtui.tui.screens.details import DetailScreen
from vigtui.tui.screens.plan import Forecast, PlanScreen
from vigtui.tui.widgets.turn import Turn

from .conftest import Stage, stage
from .snapshot import compare, picture

CODE = """Voici une fonction qui **compte** les lignes vides :

```python
def empty(path: str) -> int:
    with open(path) as file:
        return sum(1 for line in file if not line.strip())  # [b]
```

1. elle lit le fichier ligne par ligne ;
2. elle compte.

| taille | temps |
|--------|-------|
| 1 Mo   | 10 ms |
"""
STAMP = Stamp(
    "vigogneau", "0" * 64, "llama.cpp", "vigogne-chat-v2", "", {"temperature": 0.7}, (), 42, 38, 0, 84, 0.1, 2.0, "stop"
)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """UTC, and a store with the same three conversations each time."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    store, began = Store(), 1_790_000_000.0
    for number, title in enumerate(("Compter les lignes vides", "Qu'est-ce qu'un LoRA ?", "Une recette")):
        session = Session.new(store, model="vigogneau", generation=Generation(temperature=0.7))
        asked = Entry(f"a{number}", session.id, None, "user", f"{title}\nen quelques mots", created=began + number)
        old = Entry(f"b{number}", session.id, asked.id, "assistant", "Non.", "partial", began + 1, stamp=STAMP)
        said = Entry(f"c{number}", session.id, asked.id, "assistant", CODE, created=began + 2, stamp=STAMP)
        kept = replace(session.conversation, title=title, created=began, updated=began + number, leaf=said.id)
        store.save(kept, [asked, old, said])


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """The same models on every machine."""
    file = File(tmp_path / "x.gguf", 5_000_000)
    facts = {"files": (file,), "source": "vigtui", "context": 1024, "quantization": "Q8_0"}
    known = [
        Record("vigogneau", "gguf", format="vigogne-chat-v2", **facts),
        Record("vigogne-2-7b-chat", "gguf", "Q4_K_M", (File(tmp_path / "y", 4_080_000_000),), context=4096),
        Record("vigogneau-marin", "adapter", files=(file,), source="vigtui"),
    ]
    monkeypatch.setattr(builtin, "records", lambda: known)
    monkeypatch.setattr("vigtui.registry.memory.disk", lambda _folder: 80_000_000_000)


async def conversation(one: Stage) -> None:
    """A conversation with code, a table and two versions of the answer."""
    await one.screen.open(Store().list()[0].id)
    await one.ready()


async def message(one: Stage) -> None:
    await conversation(one)
    await one.press("ctrl+up")
    await one.until(lambda: isinstance(one.app.focused, Turn))


async def editing(one: Stage) -> None:
    await conversation(one)
    await one.press("ctrl+t")


async def broken(one: Stage) -> None:
    stamp = replace(STAMP, notices=("The engine process ended unexpectedly (SIGKILL).",))
    session = one.session
    asked = session.say("Et alors ?")
    session._put(Entry("z", session.id, asked.id, "assistant", "C'est que", "error", stamp=stamp))
    await one.screen.redraw()


async def cut(one: Stage) -> None:
    await conversation(one)
    one.transcript.cut([one.session.path()[0].id])


def dialog(*keys: str) -> Callable[[Stage], Awaitable[None]]:
    async def open(one: Stage) -> None:
        await one.press(*keys)
        await one.until(lambda: len(one.app.screen_stack) > 1)

    return open


async def search(one: Stage) -> None:
    await dialog("ctrl+o")(one)
    await one.press(*"lignes")
    await one.until(lambda: any("fonction" in item.detail for item in one.app.screen.shown))  # pyright: ignore


async def nothing(one: Stage) -> None:
    """The app as it opens."""


async def question(one: Stage) -> None:
    await conversation(one)
    await dialog("f8")(one)


async def title(one: Stage) -> None:
    await conversation(one)
    await dialog("f2")(one)


async def blocks(one: Stage) -> None:
    from vigtui.tui.fence import blocks
    from vigtui.tui.screens.blocks import BlocksScreen

    one.app.push_screen(BlocksScreen(blocks(CODE + "\n~~~sh\nls\n~~~\n")))


async def library(one: Stage) -> None:
    """The catalogue, narrowed; what is free on this disk is no part of the picture."""
    await dialog("f6")(one)
    screen = one.app.screen
    await one.until(lambda: screen.shown)  # pyright: ignore
    await one.press(*"falcon")
    await one.until(lambda: len(screen.shown) < 10)  # pyright: ignore


async def plan(one: Stage) -> None:
    machine = planning.Machine(80 * 10**9, 6 * 10**9)
    shape = planning.Shape(32, 32 * 8192, 4096, 11008, 32000, 4096)
    builds = [("Q2_K", 2_830_000_000), ("Q4_K_M", 4_080_000_000), ("Q8_0", 7_160_000_000)]
    plans = tuple(planning.table([(tag, size, size) for tag, size in builds], shape, machine, 2048))
    record = Record("vigogne-2-7b-chat-gguf", "gguf", "Q4_K_M", source="TheBloke/Vigogne-2-7B-Chat-GGUF")
    said = ("vigogne-2-7b-chat-gguf:Q4_K_M from TheBloke/Vigogne-2-7B-Chat-GGUF: 4.1 GB to fetch.", "A note [b].")
    one.app.push_screen(PlanScreen(Forecast(Order(Reference("x"), record), plans, plans[1], said)))


async def details(one: Stage) -> None:
    file = File(Path("/models/m.gguf"), 4_080_000_000, "0" * 64)
    record = Record(
        "vigogne-2-7b-chat", "gguf", "Q4_K_M", (file,), "TheBloke/x@1", "vigogne-chat-v2", 4096, "llama2",
        architecture="llama", parameters=6_738_415_616, quantization="Q4_K_M", notices=("One thing to know [b].",),
    )  # fmt: skip
    one.app.push_screen(DetailScreen(Detail(record, 291, {"Q4_K": 193, "F32": 65, "Q6_K": 33}, "{{ x }}"), True))


async def doctor(one: Stage) -> None:
    await conversation(one)
    await dialog("f7")(one)
    await one.until(lambda: one.app.screen.report is not None)  # pyright: ignore
    await one.press("a")
    await one.until(lambda: one.app.screen.halt is None)  # pyright: ignore


SCREENS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "new": nothing,
    "conversation": conversation,
    "message": message,
    "editing": editing,
    "broken": broken,
    "cut": cut,
    "chats": dialog("ctrl+o"),
    "search": search,
    "models": dialog("ctrl+l"),
    "formats": dialog("f4"),
    "personas": dialog("f3"),
    "adapters": dialog("f5"),
    "system": dialog("ctrl+s"),
    "generation": dialog("ctrl+g"),
    "help": dialog("f1"),
    "palette": dialog("ctrl+p"),
    "library": library,
    "plan": plan,
    "details": details,
    "doctor": doctor,
    "confirm": question,
    "title": title,
    "blocks": blocks,
}


async def settled(one: Stage) -> tuple[str, str]:
    """Give the picture once two in a row are the same."""
    for field in one.app.screen.query("Input, TextArea"):
        field.cursor_blink = False  # pyright: ignore
    before, now = None, picture(one.app)
    while now != before:
        await one.pilot.pause(0.05)
        before, now = now, picture(one.app)
    return now


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
@pytest.mark.parametrize("name", SCREENS)
async def test_look(name: str, size: tuple[int, int]) -> None:
    async with stage(size=size) as one:
        await SCREENS[name](one)
        pictures = {}
        for theme in THEMES:
            one.app.theme = THEMES[theme].name
            pictures[theme] = await settled(one)
    compare(f"{name}-{size[0]}x{size[1]}", pictures)
