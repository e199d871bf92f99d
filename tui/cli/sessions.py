"""`vigtui sessions`: the conversations that were kept."""

import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import UsageError
from ...core.i18n import _
from ...core.text import line, safe
from .output import emphasis, print_json, print_rows
from .table import Group

if TYPE_CHECKING:
    from ...chat.record import Conversation, Entry


def names(_ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
    """Give the ids of conversations that begin with `start`, for the completion of the shell."""
    from ...chat.store import Store

    return [one.id for one in Store().list(hidden=True) if one.id.startswith(start)]


@click.group("sessions", cls=Group, help=_("List, show and remove conversations."))
def sessions() -> None:
    return


@sessions.command("ls", help=_("List the conversations, the last used first."))
@click.option("-a", "--all", "everything", is_flag=True, help=_("One-shots too."))
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def list_sessions(everything: bool, machine: bool) -> None:
    from ...chat.store import Store

    found = Store().list(hidden=everything)
    if machine:
        return print_json([_table(one) for one in found])
    if not found:
        return click.echo(_("There are no conversations yet."))
    head = (_("ID"), _("LAST USED"), _("MODEL"), _("TITLE"))
    print_rows([head, *((one.id, _when(one.updated), one.model or "", line(one.title)[:60]) for one in found)])


@sessions.command("show", help=_("Print the conversation SESSION; the beginning of its id is enough."))
@click.argument("session", shell_complete=names)
@click.option("--json", "machine", is_flag=True, help=_("Print JSON, with every branch."))
def show(session: str, machine: bool) -> None:
    from ...chat.store import Store

    store = Store()
    one = store.get(session)
    entries = store.messages(one.id)
    if machine:
        return print_json({**_table(one), "messages": [asdict(entry) for entry in entries]})
    _print(one, branch(entries, one.leaf))


@sessions.command("rm", help=_("Remove conversations for good."))
@click.argument("session", nargs=-1, required=True, shell_complete=names)
@click.option("-y", "--yes", is_flag=True, help=_("Do not ask."))
def remove(session: tuple[str, ...], yes: bool) -> None:
    from ...chat.store import Store

    store = Store()
    for one in {one.id: one for one in map(store.get, session)}.values():
        if yes or _agreed(one):
            store.delete(one.id)


def _table(one: "Conversation") -> dict[str, Any]:
    return {**asdict(one), "generation": one.generation.given()}


def branch(entries: "list[Entry]", leaf: str | None) -> "list[Entry]":
    """Give the messages from the first to `leaf`, in their order."""
    known = {entry.id: entry for entry in entries}
    path: list[Entry] = []
    while leaf is not None and leaf in known:
        path.append(known[leaf])
        leaf = path[-1].parent
    return path[::-1]


def _print(one: "Conversation", entries: "list[Entry]") -> None:
    click.echo(emphasis(line(one.title) or one.id, "1"))
    facts: list[Any] = [one.id, _when(one.created), one.model, one.persona]
    click.echo(emphasis(line(" · ".join(fact for fact in facts if fact)), "2"))
    if one.system.state == "text":
        click.echo("\n" + emphasis(_("System"), "1") + "\n" + safe(one.system.text))
    for entry in entries:
        speaker = _("You") if entry.role == "user" else (entry.stamp.model if entry.stamp else "") or _("Model")
        mark = "" if entry.state == "complete" else " (" + _("stopped") + ")"
        click.echo(f"\n{emphasis(line(speaker) + mark, '1')}\n{safe(entry.content)}")


def _agreed(one: "Conversation") -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(_("Removing asks first, and there is no terminal to ask."), _("Add -y."))
    question = _("Remove the conversation “{title}” for good?").format(title=line(one.title) or one.id)
    return click.confirm(question, default=False)


def _when(time: float) -> str:
    return datetime.fromtimestamp(time).strftime("%Y-%m-%d %H:%M")
