"""The doctor in the app, the cut line, the exact meter and pinned messages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from textual.widgets import Button, Static
from vigtui.backends.base import Generation
from vigtui.chat.store import Store
from vigtui.registry import open as opening
from vigtui.tui.app import VigtuiApp
from vigtui.tui.desk import Desk
from vigtui.tui.screens.doctor import DoctorScreen
from vigtui.tui.screens.formats import FormatsScreen
from vigtui.tui.screens.table import Table

from .conftest import Engines, Stage, stage, wish


def text(screen: DoctorScreen, place: str) -> str:
    return str(screen.query_one(place, Static).content)


async def doctor(one: Stage) -> DoctorScreen:
    """Open the doctor and wait for its report."""
    await one.press("f7")
    screen = await one.opens(DoctorScreen)
    await one.until(lambda: screen.report is not None)
    await one.pilot.pause()
    return screen


async def test_the_report_shows_the_very_prompt_of_the_last_answer() -> None:
    async with stage() as one:
        await one.say("une question [b]")
        screen = await doctor(one)
        assert screen.report.prompt == one.engines.last.prompts[-1]  # pyright: ignore
        shown = text(screen, "#prompt-text").replace("⏎", "")
        assert one.engines.last.prompts[-1].text.strip() in shown
        assert "vigogne-chat-v2" in text(screen, "#overview")
        assert "BOS" in text(screen, "#tokens")


async def test_what_is_being_written_is_examined() -> None:
    async with stage() as one:
        one.prompt.put("pas encore envoyé </s>")
        screen = await doctor(one)
        kinds = [(piece.kind, piece.text) for piece in screen.report.pieces]  # pyright: ignore
        assert ("user", "pas encore envoyé </s>") in kinds
        assert one.contents == []


async def test_an_answer_is_tried_and_kept_nowhere() -> None:
    async with stage("<|user|> encore") as one:
        screen = await doctor(one)
        await one.press("a")
        await one.until(lambda: "leaked: <|user|>" in text(screen, "#answer"))
        await one.press("escape")
        await one.closes()
        assert one.contents == []
        assert Store().list() == []


async def test_formats_are_ranked_and_one_is_taken_for_this_chat() -> None:
    async with stage() as one:
        await one.say("bonjour")
        screen = await doctor(one)
        screen.query_one("#try", Button).press()
        await one.until(lambda: screen.trials)
        forms = [trial.form for trial in screen.trials]
        assert "vigogne-chat-v2" in forms and "alpaca" in forms
        table = screen.query_one(Table)
        table.move_cursor(row=forms.index("alpaca"))
        await one.press("enter")
        await one.closes()
        assert one.session.conversation.format == "alpaca"
        await one.say("et là ?")
        assert one.session.path()[-1].stamp.format == "alpaca"  # pyright: ignore


async def test_any_other_format_can_be_taken() -> None:
    async with stage() as one:
        await doctor(one)
        await one.press("f")
        await one.opens(FormatsScreen)
        await one.press(*"chatml", "enter")
        await one.closes()
        assert one.session.conversation.format == "chatml"
        screen = await doctor(one)
        assert "chatml" in text(screen, "#overview")
        assert "odd-marker" in {found.code for found in screen.report.findings}  # pyright: ignore
        assert "is no token of this model" in text(screen, "#findings")


async def test_leaving_stops_a_trial() -> None:
    async with stage(" ".join(["mot"] * 100)) as one:
        screen = await doctor(one)
        one.engines.last.hold.clear()
        await one.press("a")
        await one.until(lambda: screen.halt is not None)
        assert not screen.check_action("ask", ())
        await one.press("escape")
        await one.closes()
        one.engines.last.hold.set()
        await one.say("toujours là ?")
        assert one.contents[0] == "toujours là ?"


async def test_without_a_model_it_says_so() -> None:
    async with stage() as one:
        engine, one.desk.engine = one.desk.engine, None
        await one.press("f7")
        screen = await one.opens(DoctorScreen)
        await one.until(lambda: "No model is loaded." in text(screen, "#overview"))
        await one.press("a", "t", "escape")
        await one.closes()
        one.desk.engine = engine


@asynccontextmanager
async def embedded(**flags: Any) -> AsyncIterator[Stage]:
    """The app with the embedded model in its process."""
    values = Generation(max_tokens=12, seed=1)
    app = VigtuiApp(Desk(wish(backend=None, generation=values, **flags), opening.open))
    async with app.run_test(size=(80, 24)) as pilot:
        one = Stage(app, pilot, Engines())
        await one.ready()
        yield one


async def test_the_embedded_model_is_examined_and_tried() -> None:
    async with embedded() as one:
        screen = await doctor(one)
        assert screen.report.findings == ()  # pyright: ignore
        await one.press("t")
        await one.until(lambda: screen.trials, 60)
        assert screen.trials[0].likelihood is None or screen.trials[0].likelihood < 0


async def test_the_meter_is_what_the_engine_reads() -> None:
    async with embedded() as one:
        one.prompt.put("Qu'est-ce que vigtui ?")
        await one.quiet()
        await one.until(lambda: one.status.state.exact and one.status.state.used)
        before = one.status.state.used
        await one.say("Qu'est-ce que vigtui ?")
        assert one.session.path()[-1].stamp.prompt_tokens == before  # pyright: ignore


LONG = " ".join(["laine"] * 60)


async def test_the_cut_stands_where_the_model_begins_to_see() -> None:
    async with stage(*[LONG] * 6, context=280) as one:
        for number in range(4):
            await one.say(f"question {number}")
        await one.quiet()
        path = one.session.path()
        prepared = one.desk.count("", path)
        assert prepared and prepared.dropped
        seen = next(entry.id for entry in path if entry.id not in prepared.dropped)
        [cut] = [turn for turn in one.transcript.turns if turn.has_class("-cut")]
        assert cut.entry.id == seen  # pyright: ignore
        assert str(len(prepared.dropped)) in str(cut.border_title)
        unseen = [turn.entry.id for turn in one.transcript.turns if turn.has_class("-unseen")]  # pyright: ignore
        assert set(unseen) == set(prepared.dropped)
        assert one.contents == [entry.content for entry in path]


async def test_a_pinned_message_stays_and_the_cut_goes_below_it() -> None:
    async with stage(*[LONG] * 6, context=280) as one:
        await one.say("à retenir")
        await one.press("ctrl+up", "up", "p")
        await one.until(lambda: one.session.path()[0].pinned)
        await one.quiet()
        assert "pinned" in one.transcript.turns[0].head().plain
        await one.press("escape")
        for number in range(4):
            await one.say(f"question {number}")
        prepared = one.desk.count("", one.session.path())
        first, *_others = one.session.path()
        assert prepared and prepared.dropped and first.id not in prepared.dropped
        assert "à retenir" in one.engines.last.prompts[-1].text
        [cut] = [turn for turn in one.transcript.turns if turn.has_class("-cut")]
        ids = [entry.id for entry in one.session.path()]
        assert ids.index(cut.entry.id) == max(map(ids.index, prepared.dropped)) + 1  # pyright: ignore
        one.transcript.turns[0].focus()
        await one.press("p")
        await one.until(lambda: not one.session.path()[0].pinned)
        await one.quiet()
        assert first.id in one.desk.count("", one.session.path()).dropped  # pyright: ignore
