"""How a conversation shrinks: a ladder of smaller and smaller prompts, of which the first that fits is taken.

The tokens of single rounds choose where on the ladder to begin; the whole prompt is then rendered and counted, and
the step moves until it fits and the one before would not. The work is linear in what the context holds, not in what
the conversation holds.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from ..backends.base import Message, ModelInfo, Prompt
from .formats import Format, System
from .render import Draft, draft

Count = Callable[[Prompt], int]


@dataclass(frozen=True, slots=True)
class Shot:
    """One step of a ladder: `text` is what is sent of `draft`, `history` its size in the unit of the cap."""

    draft: Draft
    text: str
    tokens: int
    history: int
    dropped: tuple[int, ...] = ()
    shortened: tuple[int, ...] = ()


class Window:
    """A conversation and its limits. Positions of messages: `head` the system message, `rounds`, `last` the round to
    answer; `pinned` rounds stay."""

    def __init__(
        self,
        form: Format,
        messages: Sequence[Message],
        info: ModelInfo,
        count: Count,
        system: System | None,
        input: str | None,
        pinned: Collection[int],
        memory: int | None,
        limit: int,
    ) -> None:
        self.form, self.messages, self.info, self.count = form, messages, info, count
        self.system, self.input, self.memory, self.limit = system, input, memory, limit
        self.characters = form.policy == "tail-chars"
        self.head, rounds, self.last = rounds_of(messages)
        pins = frozenset(pinned)
        self.pinned = [one for one in rounds if not pins.isdisjoint(one)]
        self.free = [one for one in rounds if pins.isdisjoint(one)]
        self.base = 0

    def alone(self) -> Shot:
        """Give the last message with the system message; its tokens are what the history is counted beyond."""
        shot = self.shoot([])
        self.base = shot.tokens
        return replace(shot, history=0)

    def holds(self, shot: Shot) -> bool:
        """Whether the context holds `shot`."""
        return shot.tokens <= self.limit if self.form.policy == "rounds-or-fail" else shot.tokens < self.limit

    def allows(self, shot: Shot) -> bool:
        """Whether the context holds `shot` and the cap of the history allows it."""
        return self.holds(shot) and (self.memory is None or shot.history <= self.memory)

    @property
    def room(self) -> int:
        """How many tokens there may be, about."""
        memory = None if self.characters else self.memory
        return self.limit if memory is None else min(self.limit, self.base + memory + 1)

    def shoot(self, rounds: Sequence[Sequence[int]], shorter: dict[int, str] | None = None) -> Shot:
        """Render and count with these rounds; `shorter` holds the texts of shortened messages."""
        stay = sorted(i for one in (self.head, *rounds, self.last) for i in one)
        short = shorter or {}
        chosen = [Message(self.messages[i].role, short[i]) if i in short else self.messages[i] for i in stay]
        made = draft(self.form, chosen, self.info, system=self.system, input=self.input)
        kept = frozenset(stay)
        dropped = tuple(i for i in range(len(self.messages)) if i not in kept)
        shot = self.measure(made, made.segments)
        return replace(shot, dropped=dropped, shortened=tuple(i for i in stay if i in short))

    def measure(self, made: Draft, segments: Sequence[str]) -> Shot:
        """Count what is sent of the draft `made`: these `segments`."""
        text = "".join(segments)
        tokens = self.count(made.prompt(text))
        size = len(made.guard.plain("".join(segments[1:-1]))) if self.characters else tokens - self.base
        return Shot(made, text, tokens, size)

    def alone_tokens(self, one: Sequence[int], shorter: dict[int, str] | None = None) -> int:
        """Count the contents of a round by themselves."""
        short = shorter or {}
        text = "\n".join(short.get(i, self.messages[i].content) for i in one)
        return self.count(Prompt(((text, False),)))


class Rounds:
    """Step by step one round less; with "rounds-keep-first" the first round goes last."""

    def __init__(self, window: Window) -> None:
        self.window, self.order = window, list(window.free)
        rounds = sorted(window.free + window.pinned)
        if window.form.policy == "rounds-keep-first" and rounds and self.order and self.order[0] == rounds[0]:
            self.order.append(self.order.pop(0))
        self.steps = len(self.order)

    def at(self, step: int) -> Shot:
        """Render and count without the first `step` rounds of the order."""
        return self.window.shoot(self.order[step:] + self.window.pinned)

    def best(self, least: Shot) -> Shot:
        """Give the first step that the window allows; `least` is the last one, which is taken when none is."""
        if self.steps and self._short() and self.window.allows(whole := self.at(0)):
            return whole
        return boundary(self.guess(least.tokens), self.steps, self.at, self.window.allows, least)

    def _short(self) -> bool:
        """Whether the whole may fit, so that it is worth trying at once: eight characters a token are many."""
        return sum(len(message.content) for message in self.window.messages) <= 8 * self.window.room

    def guess(self, used: int) -> int:
        """Give the step that the tokens of single rounds suggest, when `used` tokens are needed anyway."""
        around, step = None, self.steps
        for one in reversed(self.order):
            alone = self.window.alone_tokens(one)
            if around is None:  # what the format writes around a round
                around = self.at(self.steps - 1).tokens - used - alone
            used += max(alone + around, 1)
            if used >= self.window.room:
                break
            step -= 1
        return step


class Halves(Rounds):
    """First the longer message of each round is halved, oldest round first; then rounds are dropped."""

    def __init__(self, window: Window) -> None:
        super().__init__(window)
        self.steps = 2 * len(self.order)

    def at(self, step: int) -> Shot:
        """Render and count with the first `step` rounds halved, or all halved and the first ones dropped."""
        size = len(self.order)
        halved, gone = min(step, size), max(0, step - size)
        shorter: dict[int, str] = {}
        for one in self.order[gone:halved]:
            shorter |= self._half(one)
        return self.window.shoot(self.order[gone:] + self.window.pinned, shorter)

    def _half(self, one: Sequence[int]) -> dict[int, str]:
        texts = {i: self.window.messages[i].content for i in one}
        longest = max(one, key=lambda i: len(texts[i]))
        return {longest: texts[longest][: len(texts[longest]) // 2]}

    def guess(self, used: int) -> int:
        """Give the step by single rounds: as many halves as fit, and then as many of them whole as fit."""
        size, saved, around = len(self.order), [], None
        for gone in range(size - 1, -1, -1):
            one = self.order[gone]
            half, whole = (self.window.alone_tokens(one, short) for short in (self._half(one), None))
            if around is None:
                around = self.at(2 * size - 1).tokens - used - half
            used += max(half + around, 1)
            if used >= self.window.room:
                return size + gone + 1
            saved.append(whole - half)
        step = size
        for more in saved:  # newest first
            used += more
            if used >= self.window.room:
                break
            step -= 1
        return step


def boundary(
    guess: int,
    last: int,
    at: Callable[[int], Shot],
    fits: Callable[[Shot], bool],
    least: Shot,
    first: int = 0,
) -> Shot:
    """Give the step from `first` to `last` that fits while the step before does not, searching from `guess`.

    `least` is the last step, which counts as fitting. Takes twice the logarithm of the guess's error.
    """
    low, high, best = first - 1, last, least  # low does not fit, or is before the first; high fits
    step, stride = max(first, min(guess, last)), 1
    while high - low > 1:
        step = max(low + 1, min(step, high - 1))
        if fits(shot := at(step)):
            high, best = step, shot
            step -= stride
        else:
            low = step
            step += stride
        if low >= first and high < last:  # both sides are known: halve what is between
            step = (low + high) // 2
        else:
            stride *= 2
    return best


def rounds_of(messages: Sequence[Message]) -> tuple[list[int], list[list[int]], list[int]]:
    """Give the positions of the system message, of each round, and of the last message of the user."""
    head = [0] if messages and messages[0].role == "system" else []
    rounds: list[list[int]] = []
    for i in range(len(head), len(messages)):
        if messages[i].role == "user" or not rounds:
            rounds.append([])
        rounds[-1].append(i)
    return head, rounds[:-1], rounds[-1] if rounds else []
