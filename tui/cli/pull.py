"""`vigtui pull`: what it would take, then every byte, with a pause whenever the person wants one."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import UsageError, VigtuiError
from ...core.i18n import _
from . import say
from .bar import Bar
from .models import facts
from .output import print_json, print_rows, size
from .table import Command

if TYPE_CHECKING:
    from ...registry.order import Order
    from ...registry.plan import Plan
    from ...registry.record import Record

_REFS = _("NAME of the catalogue, ORG/REPO, ORG/REPO:Q4_K_M, hf://ORG/REPO@REVISION:FILE, https://… or file://…")


@click.command("pull", cls=Command, help=_("Fetch models. REF is {references}.").format(references=_REFS))
@click.argument("references", nargs=-1, required=True, metavar="REF…")
@click.option("--name", metavar="NAME[:TAG]", help=_("Call it so."))
@click.option("--dry-run", is_flag=True, help=_("Only say what would be fetched and whether it fits."))
@click.option("--force", is_flag=True, help=_("Fetch it although it does not fit."))
@click.option("-y", "--yes", is_flag=True, help=_("Do not ask."))
@click.option("--offline", is_flag=True, help=_("Do not use the network."))
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def pull(
    references: tuple[str, ...], name: str | None, dry_run: bool, force: bool, yes: bool, offline: bool, machine: bool
) -> int:
    if name and len(references) > 1:
        raise UsageError(_("--name is for one model."), _("Pull them one by one."))
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    orders = [_ordered(one, name) for one in dict.fromkeys(references) if not (offline and _here(one, machine))]
    for order in orders:
        _tell(order, dry_run, machine)
        if not force:
            _require(order, machine or dry_run)
    if dry_run:
        return print_json([_values(one) for one in orders]) or 0 if machine else 0
    return _fetch_all([one for one in orders if _agreed(one, yes)], machine)


def _ordered(reference: str, name: str | None) -> "Order":
    from ...registry.order import prepare, weighed

    return weighed(prepare(reference, name, force=True))


def _here(reference: str, machine: bool) -> bool:
    """Tell whether the model is here already, and say so; without a network there is no more to find out."""
    from ...registry.order import held

    record = held(reference)
    if record and not machine:
        _tell_end(record, here=True, checked=False)
    return record is not None


def _require(order: "Order", told: bool) -> None:
    """Raise CapacityError when it does not fit, after the table that shows what would."""
    from ...core.errors import CapacityError
    from ...registry.order import require

    try:
        require(order)
    except CapacityError:
        if not told:
            _table(order)
        raise


def _fetch_all(orders: "list[Order]", machine: bool) -> int:
    """Fetch one after the other; give the exit code of the first that failed, the others being fetched all the same."""
    done, code = [], 0
    for order in orders:
        try:
            record = _fetch(order, machine)
            done.append(record)
        except VigtuiError as error:
            if error.exit_code == 130 or len(orders) == 1:
                raise
            say(f"vigtui: {order.reference.text}: {error.message} {error.hint}")
            code = code or error.exit_code
    if machine:
        print_json([facts(record) for record in done])
    return code


def _fetch(order: "Order", machine: bool) -> "Record":
    from ...registry.pull import fetch
    from ...registry.transfer import paused

    here, checked = bool(order.files) and not order.missing, bool(order.repository)
    try:
        with Bar(order.record.ref, [file.name for file in order.files]) as bar:
            record = fetch(order, bar)
    except KeyboardInterrupt:
        raise paused() from None
    if not machine:
        _tell_end(record, here, checked)
    for sentence in record.notices:
        if sentence not in order.notices:
            say(sentence)
    return record


def _tell_end(record: "Record", here: bool, checked: bool) -> None:
    text = _("{name} is here, {size}, and whole by its hashes.") if checked else _("{name} is here, {size}.")
    text = _("{name} was here already, {size}.") if here else text
    said = text.format(name=record.ref, size=size(record.size))
    if record.kind == "gguf":
        said += " " + _("`vigtui run {name}` starts it.").format(name=record.ref)
    elif record.kind == "adapter":
        base = record.parents[0] if record.parents else "BASE"
        said += " " + _("Use it with its base model: `vigtui -m {base} --lora {name}`.").format(
            base=base, name=record.ref
        )
    click.echo(said)


def _tell(order: "Order", dry_run: bool, machine: bool) -> None:
    """Say what a person must know before the bytes: the licence, what else there is, and in a dry run the plan."""
    if dry_run and not machine:
        _summary(order)
        _table(order)
    elif order.missing:
        say(headline(order))
    for sentence in (*order.notices, *offers(order)):
        say(sentence)


def headline(order: "Order") -> str:
    """Give what is fetched from where, in a sentence, and the licence."""
    source = order.repository or order.record.source
    text = _("{name} from {source}: {size} to fetch.").format(
        name=order.record.ref, source=source, size=size(order.missing)
    )
    if not order.record.licence:
        return text
    return text + " " + _("Licence: {licence}.").format(licence=order.record.licence)


def offers(order: "Order") -> list[str]:
    """Give what else there is, each in a sentence: a shorter context, other builds, the base model."""
    said = []
    plan = order.plan()
    if plan and not plan.fits and plan.fits_disk and plan.longest:
        said.append(_("It runs here with at most {count} tokens: --ctx {count}.").format(count=plan.longest))
    if order.branches:
        tags = ", ".join(sorted(order.branches))
        said.append(_("Other builds: {tags}; choose one with {name}:TAG.").format(tags=tags, name=order.repository))
    if order.base:
        said.append(_("It needs its base model: vigtui pull {name}").format(name=order.base))
    return said


def _summary(order: "Order") -> None:
    record = order.record
    rows = [(_("name"), record.ref), (_("from"), record.source), (_("licence"), record.licence)]
    rows += [(_("prompt format"), record.format or "")]
    if order.files:
        rows += [(_("files"), _("{count}, {size}").format(count=len(order.files), size=size(order.size)))]
    rows += [(_("to fetch"), size(order.missing))]
    print_rows([row for row in rows if row[1]])


def _table(order: "Order") -> None:
    """Print what each build needs; `*` marks the recommended one, `>` the one that would be fetched otherwise."""
    plans = order.plans() if order.files else []
    if not plans:
        return
    chosen = order.plan(plans)
    click.echo()
    print_rows([titles(plans), *(row(one, one is chosen) for one in plans)])
    click.echo(free(plans))


def titles(plans: "Sequence[Plan]") -> tuple[str, ...]:
    """Give the head of the table of plans."""
    head = ("", _("BUILD"), _("TO FETCH"), _("MEMORY"), _("OF IT KV"), _("LONGEST CONTEXT"), _("LAYERS ON GPU"), "")
    return head if any(one.gpu_layers is not None for one in plans) else (*head[:6], "", "")


def free(plans: "Sequence[Plan]") -> str:
    """Give the line below the table: the context, what is free here, and what `*` means."""
    here = plans[0].machine
    parts = [(_("disk"), here.disk), (_("memory"), here.memory), (_("GPU"), here.gpu)]
    said = ", ".join(f"{name} {size(count)}" for name, count in parts if count is not None)
    text = _("At a context of {context} tokens. Free: {free}. * is recommended here.")
    return text.format(context=plans[0].context, free=said)


def row(one: "Plan", chosen: bool) -> tuple[str, ...]:
    """Give the line of a build in the table of plans."""
    mark = "*" if one.recommended else ">" if chosen else ""
    kv, longest = ("–" if one.kv is None else size(one.kv)), ("–" if one.longest is None else str(one.longest))
    trouble = "" if one.fits else _("not enough memory") if one.fits_disk else _("not enough disk")
    memory = f"≈ {size(one.memory)}" if one.kv is not None else f"> {size(one.memory)}"
    on_gpu = "" if one.gpu_layers is None else f"{one.gpu_layers}/{one.layers}"
    return (mark, one.label, size(one.fetch), memory, kv, longest, on_gpu, trouble)


def _agreed(order: "Order", yes: bool) -> bool:
    """Ask before a model whose licence is not free for everything, where there is a person to ask."""
    if yes or not order.asks or not order.missing or not (_terminal(sys.stdin) and _terminal(sys.stderr)):
        return True
    return click.confirm(_("Pull {name}?").format(name=order.record.ref), default=True, err=True)


def _terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()


def _values(order: "Order") -> dict[str, Any]:
    from dataclasses import asdict

    plans = order.plans() if order.files else []
    chosen = order.plan(plans)
    return {
        "reference": order.reference.text, "ref": order.record.ref, "kind": order.record.kind,
        "source": order.record.source, "licence": order.record.licence, "format": order.record.format,
        "size": order.size, "missing": order.missing, "files": [asdict(file) for file in order.files],
        "plans": [_plan(one, one is chosen) for one in plans], "branches": dict(order.branches), "base": order.base,
        "notices": [*order.notices, *offers(order)],
    }  # fmt: skip


def _plan(one: "Plan", chosen: bool) -> dict[str, Any]:
    names = (
        "label", "weights", "fetch", "context", "kv", "compute", "memory", "longest", "recommended", "fits_disk",
        "fits_memory",
    )  # fmt: skip
    free = {"disk": one.machine.disk, "memory": one.machine.memory, "gpu": one.machine.gpu}
    return {**{name: getattr(one, name) for name in names}, "chosen": chosen, "free": free}
