"""The exact context window: what of a conversation is sent, counted with the model's own tokenizer."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ..backends.base import Message, ModelInfo, Prompt
from ..core.errors import ContextError, FormatError
from ..core.i18n import _
from .formats import Format, System
from .render import render

Count = Callable[[Prompt], int]
RESERVE = 1024
"""Tokens kept free for the answer when the context is large."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits: its number of `tokens`, and the positions in the messages of what was `dropped`."""

    prompt: Prompt
    tokens: int
    dropped: tuple[int, ...] = ()


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
) -> Fitted:
    """Give the longest prompt of fewer than `limit` tokens, dropping the oldest rounds whole (policy "rounds").

    A round is a message of the user with what follows it. The system message, the last message of the user and
    the rounds of messages at the positions `pinned` stay. `max_memory` caps the tokens of the history, those
    beyond system message and last message. Raises ContextError when what must stay does not fit, FormatError
    when the template fails or the format asks for another policy.
    """
    if form.policy != "rounds":
        raise FormatError(
            _("The format “{id}” asks for the policy “{policy}”, which is not known here.").format(
                id=form.id, policy=form.policy
            )
        )
    window = _Window(form, messages, info, count, system, input, pinned)
    base = window.measure(0, pinned=False)
    if base.tokens >= limit:
        raise _too_long(base.tokens, limit, _("Shorten the message or choose a larger context with `--ctx`."))
    memory = limit if max_memory is None else max_memory

    def fits(one: Fitted) -> bool:
        return one.tokens < limit and one.tokens - base.tokens <= memory

    least = window.measure(0) if window.pinned else base
    if least.tokens >= limit:
        raise _too_long(least.tokens, limit, _("Unpin a message or choose a larger context with `--ctx`."))
    return window.longest(fits, least, min(limit, base.tokens + memory + 1))


def _too_long(tokens: int, limit: int, hint: str) -> ContextError:
    text = _("The message needs {tokens} tokens with its system message; the context leaves {limit}.")
    return ContextError(text.format(tokens=tokens, limit=limit), hint)


class _Window:
    """The rounds of a conversation: those pinned, and `free` ones, oldest first, of which the newest are kept."""

    def __init__(
        self,
        form: Format,
        messages: Sequence[Message],
        info: ModelInfo,
        count: Count,
        system: System | None,
        input: str | None,
        pinned: Collection[int],
    ) -> None:
        self.form, self.messages, self.info, self.count = form, messages, info, count
        self.system, self.input = system, input
        self.head, rounds, self.last = _rounds(messages)
        self.pinned = [one for one in rounds if any(i in pinned for i in one)]
        self.free = [one for one in rounds if not any(i in pinned for i in one)]

    def measure(self, kept: int, pinned: bool = True) -> Fitted:
        """Render and count with the newest `kept` free rounds."""
        rounds = self.free[len(self.free) - kept :] + (self.pinned if pinned else [])
        stay = sorted(i for one in (self.head, *rounds, self.last) for i in one)
        chosen = [self.messages[i] for i in stay]
        prompt = render(self.form, chosen, self.info, system=self.system, input=self.input)
        dropped = set(range(len(self.messages))).difference(stay)
        return Fitted(prompt, self.count(prompt), tuple(sorted(dropped)))

    def longest(self, fits: Callable[[Fitted], bool], least: Fitted, room: int) -> Fitted:
        """Give the window with the most free rounds that `fits`, so that one round more would not.

        The tokens of each round counted alone choose where to begin; the whole prompt decides.
        """
        size = len(self.free)
        if not size:
            return least
        if self._short(room) and fits(whole := self.measure(size)):
            return whole
        kept, best = min(self._estimate(room, least.tokens), size - 1), None
        while kept and not fits(best := self.measure(kept)):
            kept -= 1
        best = best if kept and best else least
        while kept < size and fits(more := self.measure(kept + 1)):
            kept, best = kept + 1, more
        return best

    def _short(self, room: int) -> bool:
        """Whether the whole may fit, so that it is worth trying at once: eight characters a token are many."""
        return sum(len(message.content) for message in self.messages) <= 8 * room

    def _estimate(self, room: int, used: int) -> int:
        """Give how many of the newest free rounds stay below `room` tokens, by the counts of single rounds."""
        kept, around = 0, None
        for one in reversed(self.free):
            alone = self.count(Prompt((("\n".join(self.messages[i].content for i in one), False),)))
            if around is None:  # what the format writes around a round
                around = self.measure(1).tokens - used - alone
            used += max(alone + around, 1)
            if used >= room:
                break
            kept += 1
        return kept


def _rounds(messages: Sequence[Message]) -> tuple[list[int], list[list[int]], list[int]]:
    """Give the positions of the system message, of each round, and of the last message of the user."""
    head = [0] if messages and messages[0].role == "system" else []
    rounds: list[list[int]] = []
    for i in range(len(head), len(messages)):
        if messages[i].role == "user" or not rounds:
            rounds.append([])
        rounds[-1].append(i)
    return head, rounds[:-1], rounds[-1] if rounds else []
