"""What `convert`, `quantize` and `merge` share: their common flags, the plan, the progress and the report."""

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...core.i18n import _
from ...core.text import line
from . import say
from .bar import Line, duration, percent
from .interrupt import interruptible
from .models import facts
from .output import print_json, print_rows, size

if TYPE_CHECKING:
    from ...registry.record import Record
    from ...registry.workshop.order import Order
    from ...registry.workshop.plan import Plan
    from ...registry.workshop.step import Step

_MOST = 512
"""Threads that ggml can keep (GGML_MAX_N_THREADS); more end its process."""


def sources(word: str) -> str:
    """Say what may stand for `word` in a command."""
    text = _("{word} is a model's name, a folder or file, or what can be pulled: ORG/REPO, hf://…, a catalogue name.")
    return text.format(word=word)


def shared_options(command: Any) -> Any:
    """Add the flags that all works have to `command`."""
    for decorate in reversed(_shared()):
        command = decorate(command)
    return command


def _shared() -> tuple[Callable[[Any], Any], ...]:
    return (
        click.option("--name", metavar="NAME[:TAG]", help=_("Call the product so.")),
        click.option("--output", type=click.Path(path_type=Path), metavar="PATH", help=_("Write the product there.")),
        click.option("--keep", is_flag=True, help=_("Keep what is made on the way.")),
        click.option("--no-check", "unchecked", is_flag=True, help=_("Leave the quality report out.")),
        click.option("--threads", type=click.IntRange(1, _MOST), metavar="N", help=_("Threads to compute with.")),
        click.option("--dry-run", is_flag=True, help=_("Only say what would be done and whether it fits.")),
        click.option("--force", is_flag=True, help=_("Do it although it does not fit.")),
        click.option(
            "--offline", is_flag=True, expose_value=False, callback=_cut_off, help=_("Do not use the network.")
        ),
        click.option("--json", "machine", is_flag=True, help=_("Print JSON.")),
    )


def _cut_off(_context: click.Context, _flag: click.Parameter, offline: bool) -> None:
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def common(values: dict[str, Any]) -> dict[str, Any]:
    """Give the fields of an Order that the shared flags set."""
    names = ("name", "output", "keep", "threads", "force")
    return {"check": not values["unchecked"], **{name: values[name] for name in names}}


def types_option(help: str) -> Callable[[Any], Any]:
    """Give the flag -q, which may be repeated or hold several types."""
    return click.option("-q", "--type", "types", multiple=True, metavar="TYPE…", help=help)


def types_of(values: tuple[str, ...]) -> tuple[str, ...]:
    """Give the types that the values of -q hold, each with commas between several."""
    return tuple(word for value in values for word in value.replace(",", " ").split())


def calibration_option(command: Any) -> Any:
    """Add the flag --calibration to `command`."""
    text = _("Text to calibrate with: fr, en, mixed, or a file; the language that the model will be used in is best.")
    return click.option("--calibration", metavar="fr|en|mixed|FILE", help=text)(command)


def perform(order: "Order", dry_run: bool, machine: bool) -> int:
    """Plan and do what `order` says, with progress for a terminal and the reports at the end; give the exit code."""
    from ...chat.probe import probe
    from ...registry.workshop.pipeline import run
    from ...registry.workshop.product import Garbage

    if dry_run:
        return _foresee(order, machine)
    with Bar() as bar, interruptible() as stop, stop.stream():
        try:
            made = run(order, probe, bar, stop)
        except Garbage as error:
            bar.draw("")
            _tell(error.made, bar.here, machine)
            raise
    _tell(made, bar.here, machine)
    return 0


def _tell(made: "Sequence[Record]", here: Collection[str], machine: bool) -> None:
    """Print what was made and what is `here` already, each with its report."""
    if machine:
        return print_json([facts(record) for record in made])
    for record in made:
        click.echo(_sentence(record, record.ref in here))
        for notice in record.notices:
            say(notice)
        report(record)


def _sentence(record: "Record", here: bool) -> str:
    if not record.added:
        return _("{path} is made.").format(path=record.path)
    text = _("{name} is here already, {size}.") if here else _("{name} is made, {size}.")
    said = text.format(name=record.ref, size=size(record.size))
    if record.kind == "adapter":
        return f"{said} " + _("Use it with its base model: `vigtui -m BASE --lora {name}`.").format(name=record.ref)
    return f"{said} " + _("`vigtui run {name}` starts it.").format(name=record.ref)


def report(record: "Record") -> None:
    """Print the quality report of a record, where it has one, and how its first answer went."""
    values = record.made_with
    if "report" in values:
        from ...registry.workshop.report import Report, table

        print_rows(table(Report.from_values(values["report"])))
    if trial := values.get("trial"):
        ending = _("and ended by itself") if trial["ended"] else _("and did not end by itself")
        said = _("It answers: “{text}” {ending}.")
        click.echo(line(said.format(text=trial["text"].strip()[:100], ending=ending)))


def _foresee(order: "Order", machine: bool) -> int:
    from ...registry.workshop.plan import prepare, require

    with Bar() as bar:
        plan = prepare(order, bar.hashing)
    if machine:
        print_json(_values(plan))
    else:
        _show(plan)
    if not order.force:
        require(plan)
    return 0


def _show(plan: "Plan") -> None:
    for sentence in plan.notices:
        say(sentence)
    rows = [(_("pull {name}").format(name=pull.record.ref), size(pull.missing), "") for pull in plan.pulls]
    rows += [(stage.title, _about(stage.size), _about(stage.memory)) for stage in plan.stages]
    print_rows([(_("STAGE"), _("WRITES"), _("MEMORY")), *rows])
    for one in plan.products:
        text = _("{name} is here already.") if one.here else _("{name} will lie at {path}.")
        click.echo(text.format(name=one.record.ref, path=one.goal))
    free = ", ".join(
        f"{name} {size(count)}"
        for name, count in ((_("disk"), plan.free_disk), (_("memory"), plan.free_memory))
        if count is not None
    )
    click.echo(_("It takes at most ≈ {size} of disk at a time. Free: {free}.").format(size=size(plan.disk), free=free))


def _about(count: int) -> str:
    return f"≈ {size(count)}" if count else ""


def _values(plan: "Plan") -> dict[str, Any]:
    stages = [{"work": one.work, "title": one.title, "size": one.size, "memory": one.memory} for one in plan.stages]
    pulls = [{"ref": pull.record.ref, "source": pull.record.source, "missing": pull.missing} for pull in plan.pulls]
    products = [{"ref": one.record.ref, "path": str(one.goal), "here": one.here is not None} for one in plan.products]
    return {
        "pulls": pulls, "stages": stages, "products": products, "fetch": plan.fetch, "disk": plan.disk,
        "memory": plan.memory, "free": {"disk": plan.free_disk, "memory": plan.free_memory}, "fits": plan.fits,
        "notices": list(plan.notices),
    }  # fmt: skip


class Bar(Line):
    """Draws the steps of an order on one line of a terminal; `here` are the models that were made before."""

    def __init__(self) -> None:
        super().__init__()
        self.here: set[str] = set()

    def __call__(self, step: "Step") -> None:
        if step.state == "found":
            self.here.add(step.label)
        elif step.state in ("notice", "kept"):
            self.draw("")
            say(_("{path} is kept.").format(path=step.label) if step.state == "kept" else step.label)
        elif self.live:
            self.draw(self.text(step))

    def hashing(self, stage: str, done: int, total: int) -> None:
        """Draw the hashing of a source before its plan is known."""
        self.draw(f"{stage} {percent(done, total)}")

    def text(self, step: "Step") -> str:
        """Give how far an order is, on one line."""
        parts = [f"{step.number}/{step.count} {step.title}" if step.count > 1 else step.title]
        if step.total:
            parts.append(percent(step.done, step.total))
        if step.work == "pull":
            parts.append(_("{done} of {total}").format(done=size(step.done), total=size(step.total)))
        elif step.size:
            parts.append(f"≈ {size(step.size)}")
        if step.left and step.left >= 1:
            parts.append(_("≈ {time} left").format(time=duration(step.left)))
        return line(" · ".join(parts))
