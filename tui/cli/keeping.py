"""`vigtui rm`, `cp` and `adopt`: what is known here, and under which names."""

import sys
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import UsageError
from ...core.i18n import _
from . import say
from .models import facts
from .option import model_names
from .output import print_json, print_rows, size
from .table import Command

if TYPE_CHECKING:
    from ...registry.remove import Removal
    from ...registry.unfinished import Unfinished


@click.command(
    "rm", cls=Command, help=_("Remove models: their files too, where vigtui brought them and nothing uses them.")
)
@click.argument("model", nargs=-1, required=True, shell_complete=model_names)
@click.option("--dry-run", is_flag=True, help=_("Only say what would go."))
@click.option("-y", "--yes", is_flag=True, help=_("Do not ask."))
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def remove(model: tuple[str, ...], dry_run: bool, yes: bool, machine: bool) -> None:
    from ...registry.remove import plan

    done, gone = [], []
    for one in _meant(model):
        removal = one if isinstance(one, tuple) else plan(one, gone)
        if not dry_run and (yes or _agreed(removal)):
            removal = _perform(removal)
        elif not dry_run:
            continue
        gone.append(removal[0].ref if isinstance(removal, tuple) else removal.record.ref)
        done.append(_values(removal))
        if not machine:
            _tell(removal, dry_run)
    if machine:
        print_json(done)


def _meant(names: tuple[str, ...]) -> list[Any]:
    """Give a record for each name, or an unfinished pull with its bytes. Raises NotFoundError before anything goes."""
    from ...registry.store import Registry
    from ...registry.unfinished import partial

    found: dict[str, Any] = {}
    known, unfinished = Registry().all(), partial()
    for name in names:
        pull = next((one for one in unfinished if name in (one.ref, one.ref.partition(":")[0], one.reference)), None)
        if pull and all(name not in (one.ref, one.name) for one in known):
            found[f"pull {pull.ref}"] = (pull, pull.done)
        else:
            one = Registry().find(name)
            found[one.ref] = one
    return list(found.values())


def _perform(removal: "Removal | tuple[Unfinished, int]") -> "Removal | tuple[Unfinished, int]":
    from ...registry import default
    from ...registry.builtin import EMBEDDED
    from ...registry.remove import remove as drop
    from ...registry.unfinished import discard

    if isinstance(removal, tuple):
        return removal[0], discard(removal[0])
    removal = drop(removal.record)
    if default.forget(removal.record.ref):
        say(_("It was the default; {name} is it again.").format(name=EMBEDDED))
    return removal


def _tell(removal: "Removal | tuple[Unfinished, int]", dry_run: bool) -> None:
    text = _("{name} would go; {size} would be freed.") if dry_run else _("{name} is gone; {size} are freed.")
    if isinstance(removal, tuple):
        return click.echo(text.format(name=removal[0].ref, size=size(removal[1])))
    click.echo(text.format(name=removal.record.ref, size=size(removal.freed)))
    for path, reason in removal.kept:
        click.echo(_("  {path} stays: {reason}.").format(path=path, reason=reason))


def _values(removal: "Removal | tuple[Unfinished, int]") -> dict[str, Any]:
    if isinstance(removal, tuple):
        return {"ref": removal[0].ref, "freed": removal[1], "deleted": [], "kept": []}
    kept = [{"path": str(path), "reason": reason} for path, reason in removal.kept]
    return {"ref": removal.record.ref, "freed": removal.freed, "deleted": list(map(str, removal.deleted)), "kept": kept}


def _agreed(removal: "Removal | tuple[Unfinished, int]") -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(_("Removing asks first, and there is no terminal to ask."), _("Add -y."))
    name, freed = (removal[0].ref, removal[1]) if isinstance(removal, tuple) else (removal.record.ref, removal.freed)
    return click.confirm(_("Remove {name} and free {size}?").format(name=name, size=size(freed)), default=False)


@click.command("cp", cls=Command, help=_("Give MODEL a second name; its files are not copied."))
@click.argument("model", shell_complete=model_names)
@click.argument("name", metavar="NAME[:TAG]")
def copy(model: str, name: str) -> None:
    from ...registry.store import Registry

    registry = Registry()
    record = registry.copy(registry.find(model), name)
    click.echo(_("{name} is a second name of {model}.").format(name=record.ref, model=model))


@click.command(
    "adopt", cls=Command, help=_("Register the models of the hub's cache, Ollama and llama.cpp where they lie.")
)
@click.option("--dry-run", is_flag=True, help=_("Only say what there is."))
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def adopt(dry_run: bool, machine: bool) -> None:
    from ...registry.adopt import adopt as find

    found = find(dry_run)
    if machine:
        extra = [{"tool": one.candidate.tool, "path": str(one.candidate.path), "reason": one.reason} for one in found]
        records = [facts(one.record) if one.record else None for one in found]
        return print_json([{**more, "record": record} for more, record in zip(extra, records, strict=True)])
    new = [(one.record, one.candidate) for one in found if one.record]
    if new:
        head = (_("NAME"), _("KIND"), _("SIZE"), _("FROM"), _("PATH"))
        print_rows([head, *((r.ref, r.kind, size(r.size), c.tool, str(c.path)) for r, c in new)])
    for one in found:
        if one.reason:
            say(_("{path} stays out: {reason}").format(path=one.candidate.path, reason=one.reason))
    text = _("New models that would be registered: {count}.") if dry_run else _("New models registered: {count}.")
    click.echo(text.format(count=len(new)))
