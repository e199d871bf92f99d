"""The engine in its own process: killed while it answers and while it waits, and the conversation goes on."""

import os
import signal
from pathlib import Path

from vigtui.backends.base import Generation
from vigtui.backends.engine import Engine
from vigtui.chat.store import Store
from vigtui.registry import open as opening
from vigtui.tui.app import VigtuiApp
from vigtui.tui.desk import Desk
from vigtui.tui.screens.confirm import Confirm

from ...tiny import write_gguf, write_own
from .conftest import Engines, Stage, wish

SLOW = {"layers": 12, "width": 384, "heads": 6, "kv_heads": 6, "ffn": 1536}
"""A shape that is still answering when the signal or the key comes."""


async def test_killed_while_it_answers(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "tiny.gguf", **SLOW)
    values = Generation(temperature=1.0, min_tokens=1500, max_tokens=1500, seed=1)
    app = VigtuiApp(Desk(wish(model=str(model), backend=None, generation=values), opening.open))
    async with app.run_test(size=(80, 24)) as pilot:
        one = Stage(app, pilot, Engines())
        await one.ready()
        engine = one.desk.engine
        assert isinstance(engine, Engine) and engine.pid
        one.prompt.put("Bonjour")
        one.key("enter")
        await one.until(lambda: one.screen._tokens[1] > 20)
        os.kill(engine.pid, signal.SIGKILL)
        await one.quiet()
        answer = one.session.path()[-1]
        assert (answer.role, answer.state) == ("assistant", "error")
        assert answer.content
        assert "SIGKILL" in one.transcript.turns[-1].stamp().plain  # pyright: ignore
        one.session.set_generation(Generation(max_tokens=5))
        await one.say("Encore")
        assert one.session.path()[-1].state == "complete"
        assert engine.pid


async def test_killed_while_it_reads(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "tiny.gguf", **SLOW)
    app = VigtuiApp(Desk(wish(model=str(model), backend=None, generation=Generation(max_tokens=5)), opening.open))
    async with app.run_test(size=(80, 24)) as pilot:
        one = Stage(app, pilot, Engines())
        await one.ready()
        engine = one.desk.engine
        assert isinstance(engine, Engine) and engine.pid
        one.prompt.put("mot " * 700)
        one.key("enter")
        await one.until(lambda: one.screen._tokens[0] > 1000)
        os.kill(engine.pid, signal.SIGKILL)
        await one.quiet()
        answer = one.session.path()[-1]
        assert (answer.role, answer.state, answer.content) == ("assistant", "error", "")
        await one.say("Encore")
        assert one.session.path()[-1].state == "complete"


async def test_killed_while_it_waits() -> None:
    app = VigtuiApp(Desk(wish(), opening.open))
    async with app.run_test(size=(80, 24)) as pilot:
        one = Stage(app, pilot, Engines())
        await one.ready()
        engine = one.desk.engine
        assert isinstance(engine, Engine) and engine.pid
        os.kill(engine.pid, signal.SIGKILL)
        await one.until(lambda: any("process has ended" in toast.message for toast in app._notifications))
        await one.say("encore là ?")
        assert one.contents == ["encore là ?", "encore là ?"]


async def test_code_that_comes_with_a_model_runs_only_when_the_user_agrees(tmp_path: Path) -> None:
    own = str(write_own(tmp_path / "own", tmp_path / "ran"))
    app = VigtuiApp(Desk(wish(backend=None), opening.open))
    async with app.run_test(size=(80, 24)) as pilot:
        one = Stage(app, pilot, Engines())
        await one.ready()
        for answer in ("enter", "y"):
            assert one.desk.source.name == "vigogneau" and not (tmp_path / "ran").exists()
            one.screen.start_load([own])
            question = await one.opens(Confirm)
            assert own in question.question
            await one.press(answer)
            await one.ready()
        assert one.desk.source.name.startswith("own") and (tmp_path / "ran").exists()
        assert len([toast for toast in app._notifications if "--trust-remote-code" in toast.message]) == 1


async def test_stop_is_felt_at_once_and_leaving_ends_the_process(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "tiny.gguf", **SLOW)
    values = Generation(temperature=1.0, min_tokens=1500, max_tokens=1500, seed=1)
    app = VigtuiApp(Desk(wish(model=str(model), backend=None, generation=values), opening.open))
    async with app.run_test(size=(80, 24)) as pilot:
        one = Stage(app, pilot, Engines())
        await one.ready()
        engine = one.desk.engine
        assert isinstance(engine, Engine)
        one.prompt.put("Bonjour")
        one.key("enter")
        await one.until(lambda: one.screen._tokens[1] > 20)
        one.key("escape")
        await one.quiet()
        answer = one.session.path()[-1]
        assert answer.state == "partial"
        assert answer.stamp and answer.stamp.completion_tokens < 1400
        pid = engine.pid
        assert pid
    assert engine.pid is None
    assert not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_leaving_in_the_middle_of_an_answer_keeps_it(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "tiny.gguf", **SLOW)
    values = Generation(temperature=1.0, min_tokens=1500, max_tokens=1500, seed=1)
    app = VigtuiApp(Desk(wish(model=str(model), backend=None, generation=values), opening.open))
    async with app.run_test(size=(80, 24)) as pilot:
        one = Stage(app, pilot, Engines())
        await one.ready()
        one.prompt.put("Bonjour")
        one.key("enter")
        await one.until(lambda: one.screen._tokens[1] > 20)
        id = one.session.id
        one.key("ctrl+q")
        await one.until(lambda: app._exit)
    kept = Store().messages(id)[-1]
    assert (kept.role, kept.state) == ("assistant", "partial")
    assert kept.content
