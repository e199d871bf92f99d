"""`vigtui formats`: how prompts are written."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ...core.i18n import _
from ...core.text import safe
from . import say
from .output import emphasis, print_json, print_rows
from .render import render
from .table import Group

if TYPE_CHECKING:
    from ...chat.formats import Format


@click.group("formats", cls=Group, help=_("List, show and render prompt formats."))
def formats() -> None:
    return


@formats.command("ls", help=_("List the prompt formats."))
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def list_formats(machine: bool) -> None:
    from ...chat.formats import everything

    found, damaged = everything()
    for error in damaged:
        say(f"vigtui: {error}")
    if machine:
        return print_json([asdict(one) for one in found])
    print_rows([(_("ID"), _("POLICY"), _("DESCRIPTION")), *((f.id, f.policy, f.description) for f in found)])


@formats.command("show", help=_("Print the prompt format ID."))
@click.argument("id")
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def show(id: str, machine: bool) -> None:
    from ...chat.formats import get

    form = get(id)
    if machine:
        return print_json(asdict(form))
    click.echo(emphasis(safe(form.id), "1"))
    print_rows([(name, value) for name, value in _facts(form).items() if value])
    for title, text in ((_("Template"), form.template.strip("\n")), (_("Example"), form.example)):
        click.echo(f"\n{emphasis(title, '1')}\n{safe(text)}")


def _facts(form: "Format") -> dict[str, str]:
    return {
        _("Description"): form.description,
        _("Source"): form.source,
        _("System"): form.system or "",
        _("Stops"): "  ".join(map(json.dumps, form.stop)),
        _("Stop token ids"): " ".join(map(str, form.stop_token_ids)),
        _("EOS in history"): _("yes") if form.eos_in_history else _("no"),
        _("Policy"): form.policy,
        _("History"): str(form.memory or ""),
        _("Answer"): ", ".join(form.post),
        _("File"): str(form.path or ""),
    }


formats.add_command(render)
