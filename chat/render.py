"""From messages to a prompt in which no text of a message can become a control token."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from ..backends.base import Message, ModelInfo, Prompt
from ..core.errors import FormatError, UsageError
from ..core.i18n import _
from . import template
from .formats import Format, System, system_of
from .guard import Guard


def render(
    form: Format,
    messages: Sequence[Message],
    info: ModelInfo,
    *,
    system: System | None = None,
    input: str | None = None,
) -> Prompt:
    """Give the prompt for `messages`, a conversation that ends with the user, without BOS at its start.

    A leading system message is the system text; without one the format's default stands there, unless `system`
    says otherwise. `input` is the input of an instruction. Texts of special tokens inside a message become
    untrusted pieces. Raises FormatError when the template fails, UsageError when the user does not speak last.
    """
    text, turns = _resolve(form, messages, system)
    if text is not None and folds_system(form, info):
        turns, text = _fold(turns, text), None
    contents = [turn.content for turn in turns] + [part for part in (text, input) if part]
    guard = Guard(contents, info.specials, form.template)
    rendered = _rendered(form, turns, text, input, info, guard)
    plain = guard.meant(rendered)
    if guard.guard_edges():
        guarded = _rendered(form, turns, text, input, info, guard)
        rendered = guarded if guard.meant(guarded) != plain else rendered
    return Prompt(_without_bos(guard.split(rendered), form, info), _conversation(text, turns))


def _resolve(form: Format, messages: Sequence[Message], system: System | None) -> tuple[str | None, list[Message]]:
    turns = list(messages)
    text = system_of(form, system or System())
    if turns and turns[0].role == "system":
        first = turns.pop(0)
        text = first.content if system is None else text
    while turns and turns[-1].role == "assistant" and not turns[-1].content:
        turns.pop()
    if strange := {turn.role for turn in turns} - {"user", "assistant"}:
        raise UsageError(_("A message has the role “{role}”.").format(role=min(strange)))
    if not turns or turns[-1].role != "user":
        raise UsageError(_("A conversation to answer ends with a message of the user."))
    return text, turns


def _conversation(text: str | None, turns: Iterable[Message]) -> tuple[Message, ...]:
    return (*([Message("system", text)] if text is not None else []), *turns)


def _fold(turns: list[Message], text: str) -> list[Message]:
    """Put the system text before the first message of the user."""
    first = next(i for i, turn in enumerate(turns) if turn.role == "user")
    folded = replace(turns[first], content=f"{text}\n\n{turns[first].content}" if text else turns[first].content)
    return [*turns[:first], folded, *turns[first + 1 :]]


def folds_system(form: Format, info: ModelInfo) -> bool:
    """Say whether the template drops or refuses a system message, so that its text goes before the first message."""
    return _folds(form.template, form.own, info.bos, info.eos)


@lru_cache(maxsize=64)
def _folds(source: str, own: bool, bos: str, eos: str) -> bool:
    probe = "vigtui-system-probe"
    try:
        return probe not in _run(source, own, [Message("user", "u")], probe, None, False, bos, eos)
    except FormatError:
        return True


def _rendered(
    form: Format,
    turns: Sequence[Message],
    text: str | None,
    input: str | None,
    info: ModelInfo,
    guard: Guard,
) -> str:
    masked = [replace(turn, content=guard.hide(turn.content)) for turn in turns]
    system, extra = (part and guard.hide(part) for part in (text, input))
    return _run(form.template, form.own, masked, system, extra, text == form.system, info.bos, info.eos)


def _without_bos(pieces: tuple[tuple[str, bool], ...], form: Format, info: ModelInfo) -> tuple[tuple[str, bool], ...]:
    """The tokenizer adds BOS itself; where it does not, the one that a model's own template writes is the only one."""
    if not pieces or not info.bos or (form.own and not info.adds_bos):
        return pieces
    text, trusted = pieces[0]
    if not trusted or not text.startswith(info.bos):
        return pieces
    rest = text.removeprefix(info.bos)
    return ((rest, True), *pieces[1:]) if rest else pieces[1:]


def _run(
    source: str,
    own: bool,
    turns: Sequence[Message],
    system: str | None,
    input: str | None,
    is_default: bool,
    bos: str,
    eos: str,
) -> str:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    if own:
        before = [] if system is None else [{"role": "system", "content": system}]
        return template.run(
            source,
            {
                "messages": before + messages,
                "add_generation_prompt": True,
                "bos_token": bos,
                "eos_token": eos,
                "tools": None,
                "documents": None,
            },
        )
    return template.run(
        source,
        {
            "system": system,
            "messages": messages,
            "rounds": _rounds(messages),
            "input": input,
            "is_default": is_default,
            "bos": bos,
            "eos": eos,
        },
    )


def _rounds(messages: Sequence[dict[str, str]]) -> list[dict[str, str | None]]:
    """Give pairs {user, assistant}; None where one side says nothing."""
    rounds: list[dict[str, str | None]] = []
    for message in messages:
        if message["role"] == "user" or not rounds or rounds[-1]["assistant"] is not None:
            rounds.append({"user": None, "assistant": None})
        rounds[-1][message["role"]] = message["content"]
    return rounds
