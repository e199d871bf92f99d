"""From messages to a prompt in which no text of a message can become a control token."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from ..backends.base import Message, ModelInfo, Prompt
from ..core.errors import ContextError, FormatError, UsageError
from ..core.i18n import _
from . import foreign, template
from .formats import Format, System, system_of
from .guard import Guard


@dataclass(frozen=True, slots=True)
class Draft:
    """A rendered conversation before it is cut into pieces.

    `text` holds stand-ins for what must not become a control token. `segments` are `text` between the places where
    the template allows a cut: what comes before the conversation, each round, and what comes after the last.
    """

    text: str
    segments: tuple[str, ...]
    guard: Guard
    form: Format
    info: ModelInfo
    messages: tuple[Message, ...]

    def prompt(self, text: str | None = None) -> Prompt:
        """Give the prompt, or the one that only `text`, put together from segments, makes."""
        pieces = self.guard.split(self.text if text is None else text)
        return Prompt(_without_bos(pieces, self.form, self.info), self.messages)


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
    untrusted pieces. Raises FormatError when the template fails, ContextError for what no context holds, UsageError
    when the user does not speak last.
    """
    return draft(form, messages, info, system=system, input=input).prompt()


def draft(
    form: Format,
    messages: Sequence[Message],
    info: ModelInfo,
    *,
    system: System | None = None,
    input: str | None = None,
) -> Draft:
    """Give what `render` makes its prompt of. Raises as `render` does."""
    text, turns = _resolve(form, messages, system)
    if text is not None and folds_system(form, info):
        turns, text = _fold(turns, text), None
    contents = [turn.content for turn in turns] + [part for part in (text, input) if part]
    guard = Guard(contents, info.specials, form.template)
    mark = "" if form.own else guard.mark()
    try:
        rendered = _rendered(form, turns, text, input, info, guard, mark)
    except FormatError as error:
        if sum(len(one.encode("utf-8", "replace")) for one in contents) > template.LIMIT:
            raise ContextError(
                _("The messages are longer than {limit} bytes, which no context holds.").format(limit=template.LIMIT),
                _("Shorten them."),
            ) from error
        raise
    plain = guard.meant(rendered)
    if guard.guard_edges():
        guarded = _rendered(form, turns, text, input, info, guard, mark)
        rendered = guarded if guard.meant(guarded) != plain else rendered
    segments = tuple(rendered.split(mark)) if mark else (rendered,)
    return Draft("".join(segments), segments, guard, form, info, _conversation(text, turns))


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
    return _folds(form, info.bos, info.eos)


@lru_cache(maxsize=64)
def _folds(form: Format, bos: str, eos: str) -> bool:
    probe = "vigtui-system-probe"
    try:
        return probe not in _run(form, [Message("user", "u")], probe, None, bos, eos, "")
    except FormatError:
        return True


def _rendered(
    form: Format,
    turns: Sequence[Message],
    text: str | None,
    input: str | None,
    info: ModelInfo,
    guard: Guard,
    mark: str,
) -> str:
    masked = [Message(turn.role, guard.hide(turn.content)) for turn in turns] if guard.hides else turns
    system, extra = (part and guard.hide(part) for part in (text, input))
    return _run(form, masked, system, extra, info.bos, info.eos, mark, text == form.system)


def _without_bos(pieces: tuple[tuple[str, bool], ...], form: Format, info: ModelInfo) -> tuple[tuple[str, bool], ...]:
    """The tokenizer adds BOS itself; where it does not, the one that a model's own template writes is the only one."""
    if not pieces or not info.bos:
        return pieces
    text, trusted = pieces[0]
    if not trusted or not text.startswith(info.bos):
        return pieces
    rest = text[len(info.bos) * leading(text, info.bos) :]
    if form.own and not info.adds_bos:
        rest = info.bos + rest
    return ((rest, True), *pieces[1:]) if rest else pieces[1:]


def leading(text: str, bos: str) -> int:
    """Give how many times `bos` stands at the start of `text`."""
    count = 0
    while bos and text.startswith(bos, count * len(bos)):
        count += 1
    return count


def _run(
    form: Format,
    turns: Sequence[Message],
    system: str | None,
    input: str | None,
    bos: str,
    eos: str,
    mark: str,
    is_default: bool = False,
) -> str:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    if form.own:
        before = [] if system is None else [{"role": "system", "content": system}]
        variables = {"messages": before + messages, "add_generation_prompt": True, "bos_token": bos, "eos_token": eos}
        return foreign.run(form.template, {**variables, "tools": None, "documents": None})
    variables = {
        "system": system,
        "messages": messages,
        "rounds": _rounds(turns),
        "input": input,
        "is_default": is_default,
        "bos": bos,
        "eos": eos if form.eos_in_history else "",
        "cut": mark,
    }
    return template.run(form.template, variables)


def _rounds(messages: Sequence[Message]) -> list[dict[str, str | None]]:
    """Give pairs {user, assistant}; None where one side says nothing."""
    rounds: list[dict[str, str | None]] = []
    for message in messages:
        if message.role == "user" or not rounds or rounds[-1]["assistant"] is not None:
            rounds.append({"user": None, "assistant": None})
        rounds[-1][message.role] = message.content
    return rounds
