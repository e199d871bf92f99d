"""The Models screen, against a hub of its own: planned, pulled, paused, gone on with, looked at, removed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.widgets import Button, Input
from vigtui.registry import hub as client
from vigtui.registry.store import Registry
from vigtui.registry.unfinished import partial
from vigtui.tui.screens.confirm import Confirm
from vigtui.tui.screens.details import DetailScreen
from vigtui.tui.screens.library import LibraryScreen
from vigtui.tui.screens.plan import PlanScreen
from vigtui.tui.screens.table import Table

from ...hub import Hub
from ...hub.fixture import hub as hub  # the fixture
from ...registry import build
from ...tiny import write_gguf
from .conftest import Stage, stage

MODEL = build.gguf()


@asynccontextmanager
async def library(**flags: Any) -> AsyncIterator[tuple[Stage, LibraryScreen]]:
    """The app with its Models screen open and read."""
    async with stage(**flags) as one:
        await one.press("f6")
        screen = await one.opens(LibraryScreen)
        await one.until(lambda: screen.shown)
        yield one, screen


async def choose(one: Stage, screen: LibraryScreen, words: str, key: str) -> None:
    """Type `words` and go to the row `key`."""
    screen.query_one(Input).value = words
    await one.until(lambda: any(row.key == key for row in screen.shown))
    await one.pilot.pause()
    while screen.table.current != key:
        before = screen.table.current
        await one.press("down")
        assert screen.table.current != before
    await one.pilot.pause()


def state(screen: LibraryScreen, key: str) -> str:
    return screen.table.get_cell(key, "state").plain


def about(screen: LibraryScreen) -> str:
    return str(screen.query_one(".about").content)  # pyright: ignore


async def test_what_is_here_and_the_catalogue_are_listed(tmp_path) -> None:
    Registry().add(write_gguf(tmp_path / "tiny.gguf"))
    async with library() as (one, screen):
        refs = [row.ref for row in screen.shown]
        assert refs.index("tiny:F32") < refs.index("vigogne-2-7b-chat")
        assert state(screen, "model vigogneau") == "answers"
        screen.query_one(Input).value = "tiny"
        await one.until(lambda: [row.place for row in screen.shown] == ["model", "search"])
        assert str(tmp_path / "tiny.gguf") in about(screen)
        assert "models take" in str(screen.query_one(".disk").content)  # pyright: ignore


async def test_a_catalogued_model_is_found_by_any_of_its_facts() -> None:
    async with library() as (one, screen):
        await choose(one, screen, "vigogne falcon", "catalogue vigogne-falcon-7b-chat")
        assert "bofenghuang/vigogne-falcon-7b-chat" in about(screen)


async def test_the_plan_is_shown_and_the_model_pulled(hub: Hub) -> None:
    builds = {f"m.{tag}.gguf": build.gguf(4000, seed) for seed, tag in enumerate(("Q2_K", "Q4_K_M", "Q8_0"))}
    hub.add("org/m", builds, card={"license": "mit"}, downloads=1234)
    async with library() as (one, screen):
        await choose(one, screen, "m", "search m")
        await one.press("enter")
        await one.until(lambda: any(row.key == "hub org/m" for row in screen.shown))
        await choose(one, screen, "m", "hub org/m")
        assert "1,234 downloads" in about(screen)
        await one.press("enter")
        plan = await one.opens(PlanScreen)
        assert [one.label for one in plan.known.plans] == ["Q2_K", "Q4_K_M", "Q8_0"]
        await one.until(lambda: one.app.focused is plan.query_one(Table))
        await one.press("down", "enter")
        await one.until(lambda: any(row.key == "model m:Q8_0" for row in screen.shown))
        assert [found.path.read_bytes() for found in Registry().all() if found.name == "m"] == [builds["m.Q8_0.gguf"]]
        assert not one.desk.pulls.live


async def test_nothing_is_fetched_where_the_plan_is_left(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    async with library() as (one, screen):
        await choose(one, screen, "org/m", "reference org/m")
        await one.press("enter")
        await one.opens(PlanScreen)
        before = hub.bytes_of("/cdn/")
        await one.press("escape")
        await one.opens(LibraryScreen)
        assert hub.bytes_of("/cdn/") == before
        assert one.desk.pulls.all == []


async def test_asking_twice_is_asking_once(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    async with library() as (one, screen):
        await choose(one, screen, "org/m", "reference org/m")
        for _again in range(3):
            one.key("enter")
        await one.opens(PlanScreen)
        await one.press("escape")
        await one.opens(LibraryScreen)
        assert len(one.app.screen_stack) == 2


async def pulling(one: Stage, screen: LibraryScreen, hub: Hub) -> None:
    """Begin a pull that stalls in the middle."""
    hub.add("org/slow", {"m.Q4_K_M.gguf": MODEL})
    hub.fault("/cdn/", rate=40_000.0)
    await choose(one, screen, "org/slow", "reference org/slow")
    await one.press("enter")
    await one.opens(PlanScreen)
    await one.press("enter")
    await one.opens(LibraryScreen)
    await one.until(lambda: any(row.key == "pull slow:Q4_K_M" and row.held for row in screen.shown))
    await choose(one, screen, "slow", "pull slow:Q4_K_M")
    await one.until(lambda: "kB of" in about(screen) and "%" in state(screen, "pull slow:Q4_K_M"))


async def test_a_pull_shows_how_far_it_is_pauses_and_goes_on(hub: Hub) -> None:
    async with library() as (one, screen):
        await pulling(one, screen, hub)
        await one.press("f5")
        await one.until(lambda: state(screen, "pull slow:Q4_K_M") == "paused")
        part = next(client.cache().glob("**/*.vigtui")).stat().st_size
        assert 0 < part < len(MODEL)
        hub.faults.clear()
        await one.press("f6")
        await one.until(lambda: [row.place for row in screen.shown] == ["model", "search"])
        assert Registry().find("slow").path.read_bytes() == MODEL


async def test_a_pull_that_another_run_left_goes_on(hub: Hub) -> None:
    async with library() as (one, screen):
        await pulling(one, screen, hub)
    assert [kept.ref for kept in partial()] == ["slow:Q4_K_M"]
    hub.faults.clear()
    async with library() as (one, screen):
        await choose(one, screen, "slow", "pull slow:Q4_K_M")
        await one.press("enter")
        await one.until(lambda: [row.place for row in screen.shown] == ["model", "search"])
        assert Registry().find("slow").path.read_bytes() == MODEL


async def test_a_pull_goes_on_while_the_screen_is_closed(hub: Hub) -> None:
    async with library() as (one, screen):
        await pulling(one, screen, hub)
        await one.press("escape")
        await one.closes()
        hub.faults.clear()
        assert one.desk.pulls.live
        await one.say("entre-temps")
        await one.until(lambda: not one.desk.pulls.live, 30)
        assert Registry().find("slow").path.read_bytes() == MODEL


async def test_a_pull_is_given_up_and_nothing_of_it_stays(hub: Hub) -> None:
    async with library() as (one, screen):
        await pulling(one, screen, hub)
        await one.press("f8")
        await one.opens(Confirm)
        await one.press("y")
        await one.until(lambda: not one.desk.pulls.all and not any(row.place == "pull" for row in screen.shown))
        assert partial() == []
        assert not list(client.cache().glob("**/*.vigtui"))


async def test_two_pulls_wait_for_each_other(hub: Hub) -> None:
    hub.add("org/other", {"m.Q4_K_M.gguf": build.gguf(4000, 5)})
    async with library() as (one, screen):
        await pulling(one, screen, hub)
        await choose(one, screen, "org/other", "reference org/other")
        await one.press("enter")
        await one.opens(PlanScreen)
        await one.press("enter")
        await one.opens(LibraryScreen)
        await one.until(lambda: [pull.state for pull in one.desk.pulls.all] == ["running", "waiting"])
        hub.faults.clear()
        await one.until(lambda: not one.desk.pulls.live, 30)
        assert {"slow:Q4_K_M", "other:Q4_K_M"} <= {found.ref for found in Registry().all()}


@pytest.mark.parametrize(("token", "word"), [("", "logged in"), ("hf_new", "has not accepted"), ("hf_no", "refused")])
async def test_refusals_are_told_and_the_screen_goes_on(hub: Hub, monkeypatch, token: str, word: str) -> None:
    hub.add("org/g", {"m.Q4_K_M.gguf": MODEL}, gated="manual")
    hub.user("hf_new", {})
    hub.user("hf_no", {"org/g": "rejected"})
    monkeypatch.setenv("HF_TOKEN", token)
    async with library() as (one, screen):
        await choose(one, screen, "org/g", "reference org/g")
        await one.press("enter")
        await one.until(lambda: any(word in note.message for note in one.app._notifications))
        assert one.app.screen is screen


async def test_a_damaged_pull_says_what_happened(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    hub.fault("/cdn/", corrupt_at=100_000)
    async with library() as (one, screen):
        await choose(one, screen, "org/m", "reference org/m")
        await one.press("enter")
        await one.opens(PlanScreen)
        await one.press("enter")
        await one.until(lambda: any(pull.state == "failed" for pull in one.desk.pulls.all))
        await one.until(lambda: any(row.key == "pull m:Q4_K_M" and row.state == "failed" for row in screen.shown))
        await choose(one, screen, "m:q4", "pull m:Q4_K_M")
        assert "its hash is" in about(screen)


async def test_what_does_not_fit_is_asked_about(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL}, claimed={"m.Q4_K_M.gguf": 10**17})
    async with library() as (one, screen):
        await choose(one, screen, "org/m", "reference org/m")
        await one.press("enter")
        plan = await one.opens(PlanScreen)
        assert "MB" in str(plan.query_one(".complaint").content)
        await one.press("enter")
        await one.opens(Confirm)
        await one.press("escape")
        await one.opens(LibraryScreen)
        assert one.desk.pulls.all == []


async def test_details_and_the_model_answers(tmp_path) -> None:
    Registry().add(write_gguf(tmp_path / "tiny.gguf"))
    async with library() as (one, screen):
        await choose(one, screen, "tiny", "model tiny:F32")
        await one.press("enter")
        details = await one.opens(DetailScreen)
        for word in ("architecture", "tensors", "sha256", str(tmp_path)):
            assert word in details.text().plain
        await one.press("enter")
        await one.closes()
        await one.until(lambda: one.desk.source.name == "tiny:F32" and not one.screen.loading_now)


async def test_a_model_is_removed_after_a_question(hub: Hub) -> None:
    from vigtui.registry.order import prepare
    from vigtui.registry.pull import fetch

    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    record = fetch(prepare("org/m"))
    async with library() as (one, screen):
        await choose(one, screen, "m:q4", "model m:Q4_K_M")
        assert "removing it frees 200 kB" in about(screen)
        await one.press("f8")
        await one.opens(Confirm)
        await one.press("escape")
        await one.opens(LibraryScreen)
        assert record.path.exists()
        await one.press("enter")
        details = await one.opens(DetailScreen)
        details.query_one("#remove", Button).press()
        await one.opens(Confirm)
        await one.press("y")
        await one.until(lambda: not any(row.key == "model m:Q4_K_M" for row in screen.shown))
        assert not record.path.exists()


async def test_what_comes_with_vigtui_cannot_be_removed() -> None:
    async with library() as (one, screen):
        await choose(one, screen, "vigogneau", "model vigogneau")
        await one.press("f8")
        await one.until(lambda: any("comes with vigtui" in note.message for note in one.app._notifications))


async def test_offline_nothing_is_searched(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    async with library() as (one, screen):
        screen.query_one(Input).value = "zzz"
        await one.until(lambda: screen.shown == [])
        await one.press("enter", "f5", "f6", "f8")
        assert one.app.screen is screen


async def test_names_are_never_markup(hub: Hub, tmp_path) -> None:
    record = write_gguf(tmp_path / "x[b].gguf")
    Registry().add(record, "tiny")
    async with library() as (one, screen):
        await choose(one, screen, "tiny", "model tiny:F32")
        assert "x[b].gguf" in about(screen)
