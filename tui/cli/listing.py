"""`vigtui list`, `show` and `ps`: what is here, what is known of it, what runs."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ...core.i18n import _
from . import say
from .models import facts
from .option import model_names
from .output import emphasis, print_json, print_rows, size
from .table import Command

if TYPE_CHECKING:
    from ...registry.detail import Detail
    from ...registry.plan import Plan
    from ...registry.record import Record
    from ...registry.running import Running
    from ...registry.workshop.report import Report


@click.command("list", cls=Command, help=_("List the models (also `ls`)."))
@click.option("--partial", is_flag=True, help=_("Pulls that have not ended, instead."))
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def list_models(partial: bool, machine: bool) -> None:
    from ...registry import default
    from ...registry.store import Registry

    if partial:
        return _list_unfinished(machine)
    registry = Registry()
    found, used = registry.all(), registry.used()
    usual = default.among(found)
    for sentence in registry.damaged:
        say(f"vigtui: {sentence}")
    if machine:
        extra = [{"default": one.ref == usual, "used": _iso(used.get(one.ref))} for one in found]
        return print_json([{**facts(one), **more} for one, more in zip(found, extra, strict=True)])
    head = ("", _("NAME"), _("KIND"), _("SIZE"), _("TYPE"), _("CONTEXT"), _("FORMAT"), _("LAST USED"))
    print_rows([head, *(_row(one, one.ref == usual, used.get(one.ref)) for one in found)])


def _row(one: "Record", default: bool, used: float | None) -> tuple[str, ...]:
    context = "" if one.context is None else str(one.context)
    weight = size(one.size) if one.files else "–"
    weight = weight if all(file.path.exists() for file in one.files) else _("missing")
    mark = "*" if default else ""
    return (mark, one.ref, one.kind, weight, one.quantization, context, one.format or "", moment(used))


def _list_unfinished(machine: bool) -> None:
    from dataclasses import asdict

    from ...registry.unfinished import partial

    found = partial()
    if machine:
        return print_json([{**asdict(one), "size": one.size, "done": one.done} for one in found])
    if not found:
        return click.echo(_("No pull is unfinished."))
    head = (_("NAME"), _("HERE"), _("SIZE"), _("GO ON WITH"))
    print_rows([head, *((one.ref, size(one.done), size(one.size), f"vigtui pull {one.reference}") for one in found)])


@click.command("show", cls=Command, help=_("Print what is known of the model NAME, or of a file or folder."))
@click.argument("model", metavar="NAME|PATH", shell_complete=model_names)
@click.option("--ctx", "window", type=click.IntRange(min=1), metavar="N", help=_("Plan for this context, in tokens."))
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def show(model: str, window: int | None, machine: bool) -> None:
    from ...registry.detail import detail
    from ...registry.open import resolve

    known = detail(resolve(model), window)
    if machine:
        return print_json(_values(known))
    click.echo(emphasis(known.record.ref, "1"))
    print_rows([(f"  {name}", text) for name, text in lines(known) if text])
    for sentence in filter(None, (*known.record.notices, known.problem)):
        say(sentence)
    files = [(f"  {file.path}", size(file.size), file.sha256 or "") for file in known.record.files]
    if files:
        print_rows([("  " + _("files"), "", "sha256"), *files])


def _values(known: "Detail") -> dict[str, Any]:
    more = {"tensors": known.tensors, "types": dict(known.types), "template": known.template}
    more |= {"children": list(known.children), "used": _iso(known.used), "problem": known.problem}
    return {**facts(known.record), **more, "memory": _memory(known.plan)}


def _memory(plan: "Plan | None") -> dict[str, Any] | None:
    if plan is None or plan.kv is None:
        return None
    names = ("context", "weights", "kv", "compute", "memory", "longest", "fits_memory")
    return {**{name: getattr(plan, name) for name in names}, "free": plan.machine.memory}


def lines(known: "Detail") -> list[tuple[str, str]]:
    """Give what is known of a model, by name; what is empty is not known."""
    from ...registry.open import reason

    one, plan = known.record, known.plan
    types = ", ".join(f"{kind} {count}" for kind, count in known.types.items())
    need = ""
    if plan and plan.kv is not None:
        need = _("≈ {size} at {context} tokens").format(size=size(plan.memory), context=plan.context)
    template = _("its own") if known.template else _("none of its own")
    return [
        (_("kind"), one.kind), (_("architecture"), one.architecture),
        (_("parameters"), f"{one.parameters:,}".replace(",", "\u202f") if one.parameters else ""),
        (_("backend"), reason(one)), (_("type"), one.quantization),
        (_("tensors"), f"{known.tensors} ({types})" if types else ""),
        (_("context"), str(one.context or "")), (_("size"), size(one.size) if one.files else ""), (_("memory"), need),
        (_("longest context"), _("{count} tokens fit").format(count=plan.longest) if plan and plan.longest else ""),
        (_("prompt format"), one.format or ""), (_("chat template"), template if known.types else ""),
        (_("generation"), _pairs(one.generation)), (_("licence"), one.licence), (_("source"), one.source),
        (_("made of"), ", ".join(one.parents)), (_("made with"), _made(one)), *_worth(known.report),
        (_("used for"), ", ".join(known.children)), (_("lies at"), str(one.path) if one.files else ""),
        (_("added"), one.added), (_("last used"), moment(known.used) if known.used else ""),
    ]  # fmt: skip


@click.command("ps", cls=Command, help=_("List the engines that run, with their memory."))
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def ps(machine: bool) -> None:
    from dataclasses import asdict

    from ...registry.running import engines

    found = engines()
    if machine:
        return print_json([{**asdict(one), "began": _iso(one.began)} for one in found])
    if not found:
        return click.echo(_("No engine is running."))
    head = (_("MODEL"), _("BACKEND"), _("CONTEXT"), _("MEMORY"), _("GPU"), _("PROCESS"), _("SINCE"))
    print_rows([head, *map(_running, found)])


def _running(one: "Running") -> tuple[str, ...]:
    sizes = ("" if count is None else size(count) for count in (one.resident, one.gpu))
    return (one.model, one.backend, str(one.context), *sizes, str(one.pid), moment(one.began))


def _pairs(values: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if not isinstance(value, dict))


def _made(one: "Record") -> str:
    """Give the parameters of the work that made a model, and the versions of what did it."""
    versions = one.made_with.get("versions")
    return _pairs({**one.made_with, **(versions if isinstance(versions, dict) else {})})


def _worth(report: "Report | None") -> list[tuple[str, str]]:
    """Give the lines of a quality report, one value for each language or one for all."""
    if report is None:
        return []
    from ...registry.workshop.report import table

    (_empty, *languages), *rows = table(report)
    told: list[tuple[str, str]] = []
    for label, *values in rows:
        each = [f"{value} ({language})" for value, language in zip(values, languages, strict=True) if value]
        told.append((label, ", ".join(each) if len(each) > 1 else values[0]))
    return told


def moment(time: float | None) -> str:
    """Give a time, in seconds since 1970, as people write it; nothing happened is a dash."""
    return "–" if time is None else datetime.fromtimestamp(time).strftime("%Y-%m-%d %H:%M")


def _iso(time: float | None) -> str | None:
    return None if time is None else datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
