"""`vigtui` and `vigtui run`: one answer on stdout, or a chat."""

import os
from typing import Any

import click

from ... import core
from ...core.errors import UsageError
from ...core.i18n import _
from .option import chat_options, model_names, model_option
from .prompt import prompt
from .table import Command, Root
from .wish import Wish, wish

_ABOUT = _(
    "Chat with language models on your own machine, and manage them.\n\n"
    "Without a command, vigtui opens a chat, or answers once when there is a prompt (-p) or a pipe on stdin; what "
    "stdin holds follows TEXT after a blank line."
)
_CODES = _(
    "Exit codes: 0 done, 1 failure, 2 usage, 3 no such model or session, 4 does not fit (disk, memory), 5 network, "
    "6 bad file, 7 engine failed, 8 the prompt does not fit the context, 130 interrupted."
)


@click.group("vigtui", cls=Root, invoke_without_command=True, help=_ABOUT, epilog=_CODES)
@model_option
@chat_options
@click.version_option(core.__version__, message="vigtui %(version)s", help=_("Print the version."))
@click.pass_context
def root(context: click.Context, **values: Any) -> int | None:
    if context.invoked_subcommand is None:
        return start(wish(values))
    given = [p for p in context.command.params if _given(context, p)]
    if given:
        name, command = given[0].opts[0], context.invoked_subcommand
        raise UsageError(_("{flag} does not go before `{command}`.").format(flag=name, command=command))
    return None


def _given(context: click.Context, parameter: click.Parameter) -> bool:
    source = context.get_parameter_source(parameter.name or "")
    return parameter.expose_value and source is click.core.ParameterSource.COMMANDLINE


@click.command("run", cls=Command, help=_("Chat with MODEL, or have it answer PROMPT once."))
@click.argument("model", shell_complete=model_names)
@click.argument("words", nargs=-1, metavar="[PROMPT]")
@chat_options
def run(words: tuple[str, ...], **values: Any) -> int:
    if words and values["prompt"] is not None:
        raise UsageError(_("There are two prompts: one in --prompt and one after the model."))
    return start(wish(values | {"prompt": " ".join(words) if words else values["prompt"]}))


def start(wanted: Wish) -> int:
    """Answer once when there is a prompt, else chat; give the exit code."""
    text = prompt(wanted.prompt, wanted.no_stdin)
    if text is None:
        if _screen(wanted):
            from ..app import run as chat
        else:
            from .plain import chat
        return chat(wanted)
    from .ask import ask

    return ask(wanted, text)


def _screen(wanted: Wish) -> bool:
    """Whether the app opens: not in a terminal that cannot move its cursor, and not with flags of a one-shot."""
    printing = wanted.as_json or wanted.as_lines or wanted.extract
    return not (wanted.plain or printing or os.environ.get("TERM", "dumb") == "dumb")
