"""`vigtui formats render`: exactly the prompt that a conversation becomes."""

import json
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import UsageError
from ...core.i18n import _
from ...core.text import safe
from . import say
from .option import model_option
from .output import Meter, print_json
from .table import Command

if TYPE_CHECKING:
    from ...backends.base import Backend, Message, ModelInfo
    from ...chat.formats import System
    from ...chat.window import Fitted

UNLIMITED = 1 << 40


@dataclass(frozen=True, slots=True)
class Asked:
    """What the flags ask for; `limit` and `memory` in tokens."""

    id: str
    messages: "list[Message]"
    system: "System | None"
    input: str | None
    limit: int | None
    memory: int | None


@click.command(
    "render", cls=Command, help=_("Print exactly the prompt that messages become under the format ID, without BOS.")
)
@click.argument("id")
@click.option("--messages", type=click.File(), required=True, metavar="FILE",
              help=_("A JSON list of {“role”, “content”}; “-” reads it from stdin."))  # fmt: skip
@click.option("--system", metavar="TEXT", help=_("System message; an empty text is an empty message."))
@click.option("--no-system", is_flag=True, help=_("No system message at all."))
@click.option("--input", metavar="TEXT", help=_("Input of an instruction."))
@model_option
@click.option("--tokens", is_flag=True, help=_("Print the ids and texts of the model's tokens."))
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help=_("Shorten it as for a limit of N tokens."))
@click.option("--max-memory", type=click.IntRange(min=0), metavar="N", help=_("Keep at most N tokens of history."))
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def render(model: str | None, tokens: bool, machine: bool, **flags: Any) -> None:
    asked = _asked(flags)
    if model is None:
        if tokens or asked.limit is not None or asked.memory is not None:
            raise UsageError(_("Tokens are a model's: choose one with -m MODEL."))
        return _print(asked, _fitted(asked, _plain_info(), lambda _prompt: 0), None, machine, False)
    with closing(_engine(model)) as engine:
        assert engine.info is not None
        fitted = _fitted(asked, engine.info, lambda prompt: len(engine.tokenize(prompt)))
        _print(asked, fitted, engine, machine, tokens)


def _asked(flags: dict[str, Any]) -> Asked:
    from ...chat.formats import System

    text, none = flags["system"], flags["no_system"]
    if text is not None and none:
        raise UsageError(_("{one} and {other} exclude each other.").format(one="--system", other="--no-system"))
    given = None if text is None else System("text" if text else "empty", text)
    messages = _messages(flags["messages"])
    return Asked(
        flags["id"], messages, System("none") if none else given, flags["input"], flags["limit"], flags["max_memory"]
    )


def _messages(file: Any) -> "list[Message]":
    from ...backends.base import Message

    hint = _("Write a list of objects with the texts “role” and “content”.")
    try:
        found = json.load(file)
    except (ValueError, RecursionError) as error:
        raise UsageError(_("The messages cannot be read: {reason}.").format(reason=error), hint) from error
    if not isinstance(found, list) or not all(map(_is_message, found)):
        raise UsageError(_("These are no messages."), hint)
    return [Message(one["role"], one["content"]) for one in found]


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("role", "content"))


def _plain_info() -> "ModelInfo":
    """Give a model of Llama's family, for whose BOS and EOS formats are written."""
    from ...backends.base import ModelInfo

    return ModelInfo("", "", 0, 0, 0, 0, "", 0, bos="<s>", eos="</s>")


def _engine(name: str) -> "Backend":
    from ...backends.base import LoadOptions
    from ...registry import open as opening

    with Meter() as meter:
        return opening.open(opening.resolve(name), LoadOptions(), progress=meter)


def _fitted(asked: Asked, info: "ModelInfo", count: Any) -> "Fitted":
    from ...chat import formats, render, window

    form = formats.choose(None, info, asked.id)[0]
    if asked.limit is None and asked.memory is None:
        prompt = render.render(form, asked.messages, info, system=asked.system, input=asked.input)
        return window.Fitted(prompt, count(prompt))
    limit = UNLIMITED if asked.limit is None else asked.limit
    return window.fit(form, asked.messages, info, count, limit, asked.memory, system=asked.system, input=asked.input)


def _print(asked: Asked, fitted: "Fitted", engine: "Backend | None", machine: bool, tokens: bool) -> None:
    ids = engine.tokenize(fitted.prompt) if engine else []
    pieces = engine.pieces(ids) if engine and ids else []
    if machine:
        found = {"format": asked.id, "prompt": fitted.prompt.text, "dropped": fitted.dropped}
        counts = {"count": fitted.tokens, "tokens": [{"id": i, "text": t} for i, t in zip(ids, pieces, strict=True)]}
        return print_json(found | {"shortened": fitted.shortened} | (counts if engine else {}))
    if tokens:
        for id, text in zip(ids, pieces, strict=True):
            click.echo(f"{id:>7}  {safe(json.dumps(text, ensure_ascii=False))}")
    else:
        sys.stdout.write(safe(fitted.prompt.text) if sys.stdout.isatty() else fitted.prompt.text)
    _told(asked, fitted)


def _told(asked: Asked, fitted: "Fitted") -> None:
    """Say on stderr what fell out, message by message."""
    for sentence, places in ((_("Left out"), fitted.dropped), (_("Shortened"), fitted.shortened)):
        for place in places:
            message = asked.messages[place]
            say(f"{sentence}: {place + 1}. {message.role}: {message.content[:60]}")
    if asked.limit is not None:
        say(_("{tokens} tokens of {limit}.").format(tokens=fitted.tokens, limit=asked.limit))
