"""Which command is in which file, and which are announced; nothing is imported before it is used."""

import difflib
import importlib
import os

import click

from ...core.errors import UsageError
from ...core.i18n import LANGUAGES, _

COMMANDS: dict[str, str] = {
    "run": "chat:run",
    "pull": "pull:pull",
    "search": "search:search",
    "list": "listing:list_models",
    "ls": "listing:list_models",
    "ps": "listing:ps",
    "show": "listing:show",
    "add": "models:add",
    "adopt": "keeping:adopt",
    "cp": "keeping:copy",
    "rm": "keeping:remove",
    "default": "models:default",
    "convert": "convert:convert",
    "quantize": "quantize:quantize",
    "merge": "merge:merge",
    "serve": "serve:serve",
    "sessions": "sessions:sessions",
    "personas": "personas:personas",
    "formats": "formats:formats",
    "doctor": "doctor:doctor",
    "completion": "completion:completion",
}
"""Command → module of this folder and the click object in it."""

ALIASES = frozenset({"ls"})

ANNOUNCED = (
    "bench",
    "compare",
    "personas edit",
    "sessions export",
    "sessions import",
    "sessions search",
)
"""Commands that later versions have: typing one says so."""


def language_option() -> click.Option:
    """Give the option `--lang`, which `main` has read already when click comes to it."""
    return click.Option(
        ["--lang"],
        type=click.Choice(LANGUAGES),
        expose_value=False,
        help=_("Language of vigtui's own texts."),
    )


class Command(click.Command):
    """A command with `-h` and `--lang`, as all of ours."""

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)  # pyright: ignore[reportArgumentType]
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])
        self.params.append(language_option())


class Group(click.Group):
    """A command of commands, of which some are announced only."""

    command_class = Command

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)  # pyright: ignore[reportArgumentType]
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])
        self.no_args_is_help = False
        self.params.append(language_option())

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        path = f"{self.name} {args[0]}" if ctx.parent else args[0]
        if path in ANNOUNCED:
            sentence = _("`vigtui {command}` is planned, but this version does not have it yet.")
            raise click.UsageError(sentence.format(command=path))
        if not ctx.parent and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise _unknown(args[0])
        return super().resolve_command(ctx, args)


def _unknown(name: str) -> UsageError:
    near = difflib.get_close_matches(name, sorted({*COMMANDS, *ANNOUNCED}), n=1)
    hint = _("`vigtui --help` lists the commands, `vigtui -p TEXT` asks a model.")
    if near:
        hint = _("Did you mean `vigtui {command}`?").format(command=near[0])
    return UsageError(_("There is no command “{name}”.").format(name=name), hint)


class Root(Group):
    """The first word after `vigtui`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if name not in ALIASES]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _colon, attribute = COMMANDS[cmd_name].partition(":")
        return getattr(importlib.import_module(f".{module}", __package__), attribute)


def invoke(arguments: list[str]) -> int:
    """Run the command that `arguments` spell and give its exit code; click's complaints become ours."""
    from . import texts

    texts.translate()  # before the commands write their help

    from .chat import root

    if "_VIGTUI_COMPLETE" in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(root, {}, "vigtui", "_VIGTUI_COMPLETE", os.environ["_VIGTUI_COMPLETE"])
    try:
        with root.make_context("vigtui", arguments) as context:
            return root.invoke(context) or 0
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except click.UsageError as error:
        place = error.ctx.command_path if error.ctx else "vigtui"
        raise UsageError(
            error.format_message(), _("`{command} --help` shows what there is.").format(command=place)
        ) from error
