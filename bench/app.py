"""The app: first frame, key to screen and processor while it streams, tokens a second shown, a chat of 10,000 messages.

Headless, in processes of their own; start-up also against oterm and parllama where they are installed under
bench/.cache/peers (`python -m venv bench/.cache/peers && bench/.cache/peers/bin/pip install oterm parllama`).
"""

import asyncio
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import models
from .table import head, measure, middle, row

PEERS = models.CACHE / "peers" / "bin"
VIGTUI = str(Path(sys.executable).with_name("vigtui"))
TEXT = """## Installer un modèle

Tapez la commande ci-dessous et attendez la fin du **téléchargement** : le fichier arrive dans le cache de Hugging Face,
où d'autres programmes le trouvent aussi. Rien n'est copié deux fois, et un téléchargement interrompu reprend là où il
s'était arrêté, même après un redémarrage de la machine.

```sh
vigtui pull vigogne-2-7b-chat
vigtui run vigogne-2-7b-chat
```

- `Q4_K_M` convient à la plupart des machines ;
- `Q8_0` demande deux fois plus de mémoire ;
- la place libre est vérifiée avant le téléchargement.

Ensuite, écrivez votre question et appuyez sur Entrée. La réponse s'affiche au fur et à mesure ; Échap l'arrête, et ce
qui a été écrit reste dans la conversation, que vous retrouverez demain par un seul mot de son contenu.

"""


def main() -> None:
    """Print the tables, or run one measurement in this process."""
    if len(sys.argv) > 2 and sys.argv[1] in MEASUREMENTS:
        print(json.dumps(MEASUREMENTS[sys.argv[1]](int(sys.argv[2]))))
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ["VIGTUI_HOME"] = home
        _start()
        _stream()
        _long()


def _start() -> None:
    head("start-up, to the first frame in a pseudo-terminal", "seconds", "theirs ÷ ours")
    ours = middle(lambda: frame([VIGTUI, "--backend", "echo"]), 5)
    row("vigtui", f"{ours:.2f}", "1.0")
    for name in ("oterm", "parllama"):
        if (PEERS / name).exists():
            theirs = middle(lambda name=name: frame([str(PEERS / name)]), 5)
            row(name, f"{theirs:.2f}", f"{theirs / ours:.1f}")
        else:
            row(name, "skipped: not installed under bench/.cache/peers", "")


def _stream() -> None:
    print()
    head("engine, tokens/s", "shown, tokens/s", "shown ÷ made", "key to screen p50, ms", "p95, ms", "share of a core")
    for rate in (200, 1000, 5000):
        found = measure("app", "stream", rate)
        ratio = found["shown"] / found["made"]
        keys = (f"{found['p50']:.0f}", f"{found['p95']:.0f}", f"{100 * found['core']:.0f} %")
        row(rate, f"{found['shown']:.0f}", f"{ratio:.2f}", *keys)


def _long() -> None:
    print()
    head("messages in the chat", "to open, s", "memory, MB", "time ÷ that of 10")
    base = None
    for count in (10, 1000, 10_000):
        found = measure("app", "long", count)
        base = base or found["seconds"]
        row(count, f"{found['seconds']:.2f}", f"{found['megabytes']:.0f}", f"{found['seconds'] / base:.1f}")


def frame(command: list[str]) -> float:
    """Give the seconds from the start of `command` in a pseudo-terminal until it paints its first frame."""
    import pexpect

    env = os.environ | {"TERM": "xterm-256color", "TEXTUAL_ANIMATIONS": "none"}
    began = time.perf_counter()
    child = pexpect.spawn(command[0], command[1:], env=env, dimensions=(24, 80), timeout=30)
    child.expect(rb"\x1b\[\?1049h")
    child.expect(rb"48;[25];\d+")  # the first cell with a background: a frame is being painted
    seconds = time.perf_counter() - began
    child.close(force=True)
    return seconds


def stream(rate: int) -> dict[str, float]:
    """Stream for five seconds from an engine of `rate` tokens/s while keys are typed."""
    return asyncio.run(_streamed(rate))


async def _streamed(rate: int) -> dict[str, float]:
    from textual import events

    app = _app(rate, 5 * rate)
    delays: list[float] = []
    async with app.run_test(size=(120, 40)) as pilot:
        screen = app.screen
        await _until(lambda: app.desk.engine is not None)
        await pilot.pause()
        screen.prompt.put("allez")  # pyright: ignore
        screen.prompt.action_submit()  # pyright: ignore
        await _until(lambda: screen.busy)  # pyright: ignore
        began, cpu = time.perf_counter(), time.thread_time()
        engine = app.desk.engine
        while screen.busy:  # pyright: ignore
            pressed = time.perf_counter()
            app.post_message(events.Key("x", "x"))
            text = screen.prompt.text  # pyright: ignore
            await _until(lambda text=text: screen.prompt.text != text or not screen.busy)  # pyright: ignore
            painted = asyncio.Event()
            screen.prompt.call_after_refresh(painted.set)  # pyright: ignore
            await painted.wait()
            delays.append(1000 * (time.perf_counter() - pressed))
            await asyncio.sleep(0.25)  # four keys a second
        seconds, core = time.perf_counter() - began, time.thread_time() - cpu
    made = engine.made / engine.seconds  # pyright: ignore
    delays.sort()
    p95 = delays[int(0.95 * (len(delays) - 1))]
    shown = engine.made / seconds  # pyright: ignore
    return {"shown": shown, "made": made, "p50": statistics.median(delays), "p95": p95, "core": core / seconds}


def long(count: int) -> dict[str, float]:
    """Open a chat of `count` messages: seconds from the choice to its last message on the screen."""
    return asyncio.run(_opened(count))


async def _opened(count: int) -> dict[str, float]:
    import resource

    app = _app(0, 0)
    id = _write(app.desk.store, count)
    async with app.run_test(size=(80, 24)) as pilot:
        await _until(lambda: app.desk.engine is not None)
        await pilot.pause()
        began = time.perf_counter()
        await app.screen.open(id)  # pyright: ignore
        painted = asyncio.Event()
        app.screen.call_after_refresh(painted.set)
        await painted.wait()
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _app(rate: int, tokens: int) -> Any:
    from vigtui.backends.base import Done, Generation, LoadOptions, ModelInfo, Prefill, Text
    from vigtui.backends.echo import EchoBackend
    from vigtui.registry.open import files
    from vigtui.tui.app import VigtuiApp
    from vigtui.tui.cli.wish import Wish
    from vigtui.tui.desk import Desk

    words = re.findall(r"\s*\S+", TEXT)

    class Paced(EchoBackend):
        made, seconds = 0, 0.0

        def stream(self, prompt, generation, stop):  # type: ignore[no-untyped-def]
            began = time.perf_counter()
            yield Prefill(1, 1, 0)
            while self.made < tokens and not stop():
                wait = began + self.made / rate - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                yield Text(words[self.made % len(words)], 1)
                self.made += 1
            self.seconds = time.perf_counter() - began
            yield Done("stop", 1, 0, self.made, 0.0, self.seconds, 0)

    def opener(record, loading, wanted, progress):  # type: ignore[no-untyped-def]
        engine = Paced(context=1_000_000)
        info: ModelInfo = engine.load(files(record), loading, progress)
        assert info
        return engine

    none = dict.fromkeys(("model", "prompt", "system", "persona", "form", "max_memory", "session"))
    wish = Wish(**none, lora=(), backend="echo", generation=Generation(), loading=LoadOptions())  # type: ignore[arg-type]
    return VigtuiApp(Desk(wish, opener))


def _write(store: Any, count: int) -> str:
    from dataclasses import replace

    from vigtui.chat.record import Entry, Stamp, new_id
    from vigtui.chat.session import Session

    session, entries = Session.new(store), []
    for number in range(count):
        role, parent = ("assistant" if number % 2 else "user"), (entries[-1].id if entries else None)
        stamp = Stamp(model="vigogneau", backend="echo") if number % 2 else None
        text = f"Message **{number}** :\n\n- un\n- deux\n\n```python\nx = {number}\n```\n"
        entries.append(Entry(new_id(12), session.id, parent, role, text, stamp=stamp))
    store.save(replace(session.conversation, title="long", leaf=entries[-1].id), entries)
    return session.id


async def _until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


MEASUREMENTS: dict[str, Callable[[int], dict[str, float]]] = {"stream": stream, "long": long}

if __name__ == "__main__":
    main()
