"""`vigtui completion SHELL`: the script that completes commands, flags and model names."""

import click

from ...core.i18n import _
from .table import Command


@click.command("completion", cls=Command, help=_("Print the completion script of a shell."))
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "vigtui", "_VIGTUI_COMPLETE").source())
