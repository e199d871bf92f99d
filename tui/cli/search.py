"""`vigtui search`: models of the catalogue, then those of the hub."""

import os
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import NetworkError, UsageError
from ...core.i18n import _
from . import say
from .output import print_json, print_rows
from .table import Command

if TYPE_CHECKING:
    from ...registry.catalogue import Entry
    from ...registry.hub import Found


@click.command("search", cls=Command, help=_("Find models to pull: in the catalogue, and on the hub when online."))
@click.argument("words", nargs=-1, required=True, metavar="WORDS")
@click.option("--offline", is_flag=True, help=_("Only look in the catalogue."))
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def search(words: tuple[str, ...], offline: bool, machine: bool) -> None:
    from ...registry import catalogue

    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    known = catalogue.search(" ".join(words))
    listed = {one.repository.casefold() for one in known}
    found = [one for one in _hub(" ".join(words)) if one.repository.casefold() not in listed]
    if machine:
        return print_json({"catalogue": [_entry(one) for one in known], "hub": [_found(one) for one in found]})
    _print(known, found)


def _hub(words: str) -> "list[Found]":
    """Give what the hub finds; without a network the catalogue is enough."""
    from ...registry import hub

    if hub.offline():
        return []
    try:
        return hub.search(words)
    except NetworkError as error:
        say(error.message + " " + _("Only the catalogue was searched."))
        return []


def _print(known: "list[Entry]", found: "list[Found]") -> None:
    if not known and not found:
        return click.echo(_("No model is called so."))
    if known:
        head = (_("NAME"), _("KIND"), _("TYPE"), _("FOUNDATION"), _("LICENCE"), _("STATUS"))
        print_rows([head, *((ref(one), one.kind, one.type, one.foundation, one.licence, status(one)) for one in known)])
    if found:
        if known:
            click.echo()
        head = (_("ON THE HUB"), _("DOWNLOADS"), _("LICENCE"), "")
        rows = ((one.repository, str(one.downloads), one.licence, _("gated") if one.gated else "") for one in found)
        print_rows([head, *rows])


def ref(one: "Entry") -> str:
    """Give what `vigtui pull` takes for this very entry: its short name when that means it, else its repository."""
    from ...registry import catalogue

    try:
        if one.kind == "full" and catalogue.named(one.short) is one:
            return one.short
    except UsageError:
        pass
    return one.repository + ("" if one.revision == "main" else f"@{one.revision}")


def status(one: "Entry") -> str:
    """Give the rank of an entry, and what its licence asks."""
    more = {"research": _("research only"), "accept": _("licence to accept"), "removed": _("removed")}
    status = {
        "recommended": _("recommended"), "legacy": _("legacy"), "pretrained": _("pretrained"),
        "conversion": _("conversion"),
    }  # fmt: skip
    return ", ".join(filter(None, (status.get(one.status, one.status), more.get(one.restriction, ""))))


def _entry(one: "Entry") -> dict[str, Any]:
    from dataclasses import asdict

    return {"ref": ref(one), **asdict(one)}


def _found(one: "Found") -> dict[str, Any]:
    from dataclasses import asdict

    return {"ref": one.repository, **asdict(one)}
