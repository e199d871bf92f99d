"""The exact context window: what of a conversation is sent, counted with the model's own tokenizer.

Policies, by what they give up first: "rounds" drops the oldest rounds whole (Vigogne Chat V2); "rounds-keep-first"
keeps the first round, which holds the system text, until nothing else is left (V3); "rounds-or-fail" is "rounds" with
at most the limit instead of below it (V1); "tail-tokens" (FastChat) and "tail-chars" (Chinese-Vicuna's instruct chat)
cut the oldest text off, in the middle of a round; "halve-then-drop" (Chinese-Vicuna's chat, repaired: as published, it
never drops and may pass its limit) halves old messages, then drops rounds. Sources: those that the format files name.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ..backends.base import Message, ModelInfo, Prompt
from ..core.errors import ContextError
from ..core.i18n import _
from .formats import Format, System
from .policy import Count, Halves, Rounds, Window
from .tail import Tail

__all__ = ["RESERVE", "Count", "Fitted", "budget", "fit"]

RESERVE = 1024
"""Tokens kept free for the answer when the context is large."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits: its number of `tokens`, and the positions in the messages of what was `dropped` whole and
    of what was `shortened`."""

    prompt: Prompt
    tokens: int
    dropped: tuple[int, ...] = ()
    shortened: tuple[int, ...] = ()


def budget(context: int, max_tokens: int | None = None) -> int:
    """Give the limit in tokens that a prompt must stay below, so that the answer has room in `context`."""
    return context - min(max_tokens or RESERVE, context // 4)


def fit(
    form: Format,
    messages: Sequence[Message],
    info: ModelInfo,
    count: Count,
    limit: int,
    max_memory: int | None = None,
    pinned: Collection[int] = (),
    *,
    system: System | None = None,
    input: str | None = None,
    about: bool = False,
) -> Fitted:
    """Give the longest prompt of fewer than `limit` tokens that the format's policy allows.

    A round is a message of the user with what follows it. The system message, the last message of the user and
    the rounds of messages at the positions `pinned` stay. `max_memory` caps the history, in tokens beyond system
    message and last message; with "tail-chars" the dialogue, in characters. None takes the format's own cap.
    `about` says that `count` only estimates. Raises ContextError when what must stay does not fit, FormatError when
    the template fails.
    """
    memory = form.memory if max_memory is None else max_memory
    window = Window(form, messages, info, count, system, input, pinned, memory, limit)
    base = window.alone()
    if not window.holds(base):
        raise _too_long(base.tokens, about, limit, _("Shorten the message or choose a larger context with `--ctx`."))
    ladder = _LADDERS[form.policy](window)
    least = ladder.at(ladder.steps)
    if not window.holds(least):
        raise _too_long(least.tokens, about, limit, _("Unpin a message or choose a larger context with `--ctx`."))
    shot = ladder.best(least)
    return Fitted(shot.draft.prompt(shot.text), shot.tokens, shot.dropped, shot.shortened)


_LADDERS: dict[str, Callable[[Window], Rounds]] = {
    "rounds": Rounds,
    "rounds-keep-first": Rounds,
    "rounds-or-fail": Rounds,
    "tail-tokens": Tail,
    "tail-chars": Tail,
    "halve-then-drop": Halves,
}


def _too_long(tokens: int, about: bool, limit: int, hint: str) -> ContextError:
    text = _("The message needs {tokens} tokens with its system message; the context leaves {limit}.")
    return ContextError(text.format(tokens=f"≈ {tokens}" if about else tokens, limit=limit), hint)
