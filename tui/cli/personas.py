"""`vigtui personas`: who can answer."""

from dataclasses import asdict

import click

from ...core.i18n import _
from ...core.text import safe
from . import say
from .output import emphasis, print_json, print_rows
from .table import Group


@click.group("personas", cls=Group, help=_("List and show personas: who can answer, and how."))
def personas() -> None:
    return


@personas.command("ls", help=_("List the personas."))
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def list_personas(machine: bool) -> None:
    from ...chat.persona import everything

    found, damaged = everything()
    for error in damaged:
        say(f"vigtui: {error}")
    if machine:
        return print_json([asdict(one) for one in found])
    if not found:
        return click.echo(_("There are no personas yet."))
    head = (_("NAME"), _("LANGUAGE"), _("DESCRIPTION"))
    print_rows([head, *((one.name, one.language, one.description) for one in found)])


@personas.command("show", help=_("Print the persona NAME."))
@click.argument("name")
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def show(name: str, machine: bool) -> None:
    from ...chat.persona import get

    one = get(name)
    if machine:
        return print_json({**asdict(one), "generation": one.generation.given()})
    click.echo(emphasis(safe(one.name), "1"))
    facts = {_("Description"): one.description, _("Language"): one.language, _("Model"): one.model, _("File"): one.path}
    facts |= {name: value for name, value in one.generation.given().items()}
    print_rows([(name, str(value)) for name, value in facts.items() if value not in (None, "")])
    if one.system is not None:
        click.echo("\n" + safe(one.system))
