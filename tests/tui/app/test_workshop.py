"""The workshop: an order from its fields to a registered model, stopped and gone on with, refused in a sentence."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual.widgets import Input, Select, Static
from vigtui import assets
from vigtui.core.errors import BackendError
from vigtui.registry.record import Record
from vigtui.registry.store import Registry
from vigtui.registry.workshop.pipeline import Step
from vigtui.registry.workshop.report import Report, Score
from vigtui.tui.jobs import Job
from vigtui.tui.screens.log import tail
from vigtui.tui.screens.make import MakeScreen
from vigtui.tui.screens.picker import Picker
from vigtui.tui.screens.workshop import WorkshopScreen, about
from vigtui.tui.widgets.chart import chart

from .conftest import Stage, stage


@asynccontextmanager
async def making(**flags: Any) -> AsyncIterator[tuple[Stage, MakeScreen]]:
    """Open the form of a new job."""
    async with stage(**flags) as one:
        await one.press("f9")
        screen = await one.opens(MakeScreen)
        yield one, screen


def said(screen: MakeScreen, what: str) -> str:
    return str(screen.query_one(what, Static).content)


async def test_a_merge_becomes_a_model_with_its_proof() -> None:
    async with making() as (one, form):
        assert form.query_one("#source", Input).value == "vigogneau-hf"
        form.query_one("#adapter", Input).value = "vigogneau-marin"
        await one.until(lambda: form.plan is not None)
        assert "vigogneau-hf-marin:Q4_K_M" in said(form, "#plan") and "2.7 MB" in said(form, "#plan")
        await one.press("ctrl+s")
        workshop = await one.opens(WorkshopScreen)
        assert isinstance(workshop, WorkshopScreen)
        [job] = one.desk.jobs.all
        await one.until(lambda: not job.live, 120)
        assert job.state == "done", job.error
        known = Registry().find("vigogneau-hf-marin:Q4_K_M")
        assert known.parents == ("vigogneau-hf", "vigogneau-marin")
        await one.until(lambda: "same first choice" in str(workshop.query_one(".about Static", Static).content))
        shown = str(workshop.query_one(".about Static", Static).content)
        assert "same first choice" in shown and "It answers:" in shown
        await one.press("enter")
        await one.closes()
        await one.until(lambda: one.desk.source.name == "vigogneau-hf-marin:Q4_K_M")


async def test_every_work_has_its_own_fields() -> None:
    async with making(size=(100, 40)) as (one, form):
        seen = {}
        for work in ("merge", "quantize", "gptq", "convert"):
            form.query_one("#work", Select).value = work
            await one.until(lambda work=work: form.shown == work)
            seen[work] = form.query_one("#row-bits").display, form.query_one("#row-types").display
            assert said(form, ".about-work")
        assert seen == {
            "merge": (False, True),
            "quantize": (False, True),
            "gptq": (True, False),
            "convert": (False, False),
        }


async def test_what_cannot_be_is_said_and_not_started(tmp_path: Path) -> None:
    async with making() as (one, form):
        await one.until(lambda: "Which adapter?" in said(form, ".complaint"))
        form.query_one("#work", Select).value = "quantize"
        await one.until(lambda: form.plan is not None)
        form.query_one("#types", Input).value = "Q4_K_X"
        await one.until(lambda: "Q4_K_M" in said(form, ".complaint"))
        form.query_one("#types", Input).value = "Q8_0"
        form.query_one("#source", Input).value = str(tmp_path / "nothing")
        await one.until(lambda: "nothing" in said(form, ".complaint"))
        await one.press("ctrl+s")
        assert one.app.screen is form and not one.desk.jobs.all


async def test_types_and_paths_may_be_written_as_on_the_command_line(tmp_path: Path) -> None:
    marin = shutil.copytree(assets.path("vigogneau/marin"), tmp_path / "l'été marin")
    async with making() as (one, form):
        form.query_one("#types", Input).value = "q8_0,Q4_K_M"
        for text, scales in (
            (str(marin), [1.0]),
            (f"{marin}=0.5", [0.5]),
            (f'"{marin}=0.5" vigogneau-marin=2', [0.5, 2.0]),
            ("vigogneau-marin  vigogneau-marin=0.5", [1.0, 0.5]),
        ):
            form.query_one("#adapter", Input).value = text
            await one.until(lambda: form.plan is not None)
            assert [scale for _name, scale in form.order().adapters] == scales
        assert form.plan and [product.record.tag for product in form.plan.products] == ["Q8_0", "Q4_K_M"]
        assert said(form, ".about-type").count("\n") == 1


async def test_models_and_adapters_are_chosen_from_a_list() -> None:
    async with making() as (one, form):
        form.query_one("#adapter").focus()
        await one.press("f2")
        picker = await one.opens(Picker)
        assert [item.id for item in picker.shown] == ["vigogneau-marin"]
        await one.press("enter")
        await one.until(lambda: form.query_one("#adapter", Input).value == "vigogneau-marin")
        form.query_one("#source").focus()
        await one.press("f2")
        picker = await one.opens(Picker)
        assert "vigogneau-hf" in [item.id for item in picker.shown]


async def test_a_job_is_stopped_and_gone_on_with() -> None:
    async with making() as (one, form):
        form.query_one("#work", Select).value = "quantize"
        form.query_one("#types", Input).value = "Q8_0"
        await one.until(lambda: form.plan is not None)
        await one.press("ctrl+s")
        await one.opens(WorkshopScreen)
        [job] = one.desk.jobs.all
        await one.until(lambda: any(step.work == "convert" for step in job.steps))
        await one.press("f5")
        await one.until(lambda: not job.live, 60)
        assert job.state == "stopped"
        assert all(record.ref != "vigogneau-hf:Q8_0" for record in Registry().all())
        await one.press("f6")
        [again] = one.desk.jobs.all
        await one.until(lambda: not again.live, 120)
        assert again.state == "done" and Registry().find("vigogneau-hf:Q8_0")


def test_a_failure_is_marked_where_it_happened() -> None:
    steps = [Step(1, 2, "merge", "merge", "done"), Step(2, 2, "convert", "convert F16")]
    job = Job("a:Q4_K_M", None, "failed", steps, error=BackendError("The disk [b]broke[/b].", "Buy one."))  # pyright: ignore
    lines = about(job).plain.splitlines()
    assert lines == ["✓ merge", "✗ convert F16", "! The disk [b]broke[/b]. Buy one."]


def test_the_chart_says_what_was_measured() -> None:
    scores = {"fr": Score(100, 10.0, 12.5, 0.0123, 0.95), "en": Score(100, 10.0, None, None, None)}
    text = chart(Report("a", "b", "llama.cpp", "llama.cpp", scores, 3_000_000, 9_000_000, 80.5)).plain
    assert "3.0 MB, from 9.0 MB" in text and "95.0 %" in text and "12.50, from 10.00 · KL 0.0123" in text
    sized, first, *_rest = text.splitlines()
    assert sized.count("█") == 8 and first.count("█") == 23
    assert "–" in text and "80.5 tokens/s" in text


def test_the_log_is_safe_to_show(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\r 50 %\r100 %\r\n\x1b[31mred\x07\xff\n")
    assert tail(log).splitlines()[0] == "100 %"
    assert "\x1b" not in tail(log) and "red" in tail(log)


def test_the_record_of_an_adapter_does_not_answer() -> None:
    from vigtui.tui.screens.workshop import answering

    job = Job("a", None, "done", made=[Record("a", "adapter")])  # pyright: ignore
    assert answering(job) is None
