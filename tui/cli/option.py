"""The flags of a chat, in one place: `vigtui` and `vigtui run` share them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ...core.i18n import _

Decorator = Callable[[Any], Any]


def model_names(_ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
    """Give the models whose names begin with `start`, for the completion of the shell."""
    from ...registry.store import Registry

    return [record.ref for record in Registry().all() if record.ref.startswith(start)]


def chat_options(command: Any) -> Any:
    """Add every flag of a chat but `--model` to `command`, in the order in which help shows them."""
    for decorate in reversed((*_what(), *_loading(), *_generation(), *_keeping(), *_printing())):
        command = decorate(command)
    return command


def loading_options(command: Any) -> Any:
    """Add the flags that say how a model is loaded to `command`."""
    for decorate in reversed(_loading()):
        command = decorate(command)
    return command


def model_option(command: Any) -> Any:
    """Add `--model` to `command`."""
    text = _("Name, abbreviation or path of the model.")
    return click.option("-m", "--model", metavar="MODEL", shell_complete=model_names, help=text)(command)


def _what() -> tuple[Decorator, ...]:
    return (
        click.option("-p", "--prompt", metavar="TEXT", help=_("Answer TEXT once on stdout; “-” reads it from stdin.")),
        click.option(
            "-s",
            "--system",
            metavar="TEXT",
            help=_("System message; “default” is the format's, “none” no message at all."),
        ),
        click.option("--system-file", type=_file(), metavar="FILE", help=_("Take the system message from FILE.")),
        click.option("--persona", metavar="NAME", help=_("Speak as this persona.")),
        click.option("--format", "form", metavar="ID", help=_("Prompt format, instead of the model's own.")),
        click.option("--lora", multiple=True, metavar="REF[=SCALE]", help=_("Apply this adapter; may be repeated.")),
        click.option("--backend", metavar="NAME", help=_("Engine to use; `vigtui doctor` lists them.")),
        click.option(
            "--max-memory",
            type=click.IntRange(min=1),
            metavar="N",
            help=_("Send at most N tokens of history (characters, with formats that cut at characters)."),
        ),
        click.option("--no-stdin", is_flag=True, help=_("Do not read stdin.")),
    )


def _loading() -> tuple[Decorator, ...]:
    return (
        click.option("--ctx", "window", type=click.IntRange(min=1), metavar="N", help=_("Context window in tokens.")),
        click.option("--gpu-layers", type=int, metavar="N", help=_("Layers to put on the GPU; −1 is all.")),
        click.option("--threads", type=click.IntRange(min=1), metavar="N", help=_("Threads of the engine.")),
        click.option("--device", metavar="NAME", help=_("cpu, cuda, cuda:1, mps …")),
        click.option("--dtype", metavar="NAME", help=_("f32, f16 or bf16.")),
        click.option("--load-in", type=click.Choice(["8bit", "4bit"]), help=_("Quantize while loading.")),
        click.option(
            "--trust-remote-code", "remote_code", is_flag=True, help=_("Run code that comes with this model.")
        ),
        click.option("--force", is_flag=True, help=_("Load it although the plan says that it does not fit.")),
        click.option("--offline", is_flag=True, help=_("Do not use the network.")),
    )


def _generation() -> tuple[Decorator, ...]:
    number, count, text = click.FLOAT, click.INT, click.STRING
    table = (
        (("--temperature",), number, _("0 always takes the likeliest token.")),
        (("--top-p",), number, _("Draw from the likeliest tokens that reach this share together.")),
        (("--top-k",), count, _("Draw from the K likeliest tokens; 0 is all.")),
        (("--min-p",), number, _("Drop tokens below this share of the likeliest one.")),
        (("--repetition-penalty",), number, _("Above 1, tokens seen before become less likely.")),
        (("--repetition-window",), count, _("How many tokens back it looks; −1 is prompt and answer.")),
        (("--presence-penalty",), number, _("Taken once from tokens that occurred.")),
        (("--frequency-penalty",), number, _("Taken each time a token occurred.")),
        (("--no-repeat-ngram-size",), count, _("Never repeat so many tokens in a row.")),
        (("--num-beams",), count, _("Width of beam search.")),
        (("--seed",), count, _("The same seed gives the same draw.")),
        (("-n", "--max-tokens"), count, _("Longest answer, in tokens.")),
        (("--min-tokens",), count, _("Shortest answer, in tokens.")),
        (("--json-schema",), text, _("Answer in JSON of this schema; “@FILE” reads it.")),
        (("--grammar",), text, _("Answer in this GBNF grammar; “@FILE” reads it.")),
    )
    lists = (
        ("--stop", "stop", _("End the answer before TEXT; may be repeated.")),
        ("--ban", "banned_strings", _("Never write TEXT; may be repeated.")),
    )
    return (
        *(click.option(*names, type=kind, metavar=_metavar(kind), help=help) for names, kind, help in table),
        *(click.option(flag, name, multiple=True, metavar="TEXT", help=help) for flag, name, help in lists),
    )


def _metavar(kind: click.ParamType) -> str:
    return {"float": "X", "integer": "N"}.get(kind.name, "TEXT")


def _keeping() -> tuple[Decorator, ...]:
    return (
        click.option(
            "-c", "--continue", "session", is_flag=False, flag_value="", metavar="[SESSION]",
            help=_("Go on with the last conversation, or with SESSION."),
        ),
        click.option("--no-save", is_flag=True, help=_("Keep nothing of this conversation.")),
    )  # fmt: skip


def _printing() -> tuple[Decorator, ...]:
    return (
        click.option("--json", "as_json", is_flag=True, help=_("Print one JSON object at the end.")),
        click.option("--jsonl", "as_lines", is_flag=True, help=_("Print every event as a line of JSON.")),
        click.option("--stats", is_flag=True, help=_("Print counts and times on stderr.")),
        click.option("-x", "--extract", is_flag=True, help=_("Print the last fenced code block only.")),
        click.option("--plain", is_flag=True, help=_("Chat line by line.")),
    )


def _file() -> click.Path:
    return click.Path(exists=True, dir_okay=False, path_type=Path)
