"""Beam search and beam sampling that stream: what all live hypotheses agree on is settled and shown.

The algorithm is that of transformers 5 (GenerationMixin._beam_search) with its defaults, early_stopping=False and
length_penalty=1.0: the same arguments give the same tokens.
"""

import secrets
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .banned import Banned
from .base import Beams, Event, FinishReason, Generation, Stop, Text
from .runner import Runner
from .sampling import Processors, check, ending
from .text import TextStream
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """An answer so far: its `tokens`, their `text` in bytes, the sum `score` of their log-probabilities.

    `row` is the row of the cache that holds all of it but the last token.
    """

    tokens: tuple[int, ...] = ()
    text: bytes = b""
    tail: bytes = b""
    score: float = 0.0
    row: int = 0

    @property
    def mean(self) -> float:
        """The score a token, by which hypotheses that ended are compared."""
        return self.score / max(1, len(self.tokens))


class Search:
    """The live and the ended hypotheses of one answer. `prompt` are its token ids, `limit` the tokens at most."""

    def __init__(
        self, generation: Generation, vocabulary: Vocabulary, prompt: Sequence[int], limit: int, device: "torch.device"
    ) -> None:
        import torch

        self.live, self.ended = [Hypothesis()], []
        self.seed = secrets.randbelow(2**32 - 1) if generation.seed is None else generation.seed
        self._count, self._limit = generation.num_beams or 1, limit
        self._sampled = bool(generation.temperature)
        self._generator = torch.Generator(device).manual_seed(self.seed)
        self._vocabulary, self._ends = vocabulary, frozenset(ending(vocabulary, generation))
        self._kept = max(2, 1 + len(self._ends))
        self._processors = Processors(generation, tuple(self._ends), self._kept)
        self._stops = tuple(stop.encode("utf-8", "replace") for stop in generation.stop or () if stop)
        self._banned = Banned(generation.banned_strings or (), vocabulary.piece)
        self._history = torch.tensor([list(prompt)], device=device)

    live: list[Hypothesis]
    """Those that go on, best first."""
    ended: list[Hypothesis]
    """Those that ended, best first; at most as many as there are beams."""

    def advance(self, logits: "torch.Tensor") -> bool:
        """Take the logits (live hypotheses, n_vocab) of the next token in; give whether the search goes on."""
        import torch

        with torch.inference_mode():
            picked = self._pick(self._totals(logits))
        over = [hypothesis.tokens[-1] in self._ends or self._full(hypothesis) for hypothesis in picked]
        # Only the best of them may end, the others are there so that enough go on.
        new = [one for one, ends in zip(picked[: self._count], over, strict=False) if ends]
        self.ended = sorted([*self.ended, *new], key=lambda one: -one.mean)[: self._count]
        going = [one for one, ends in zip(picked, over, strict=True) if not ends]
        self.live = sorted(going, key=lambda one: -one.score)[: self._count]
        if not self.live:
            return False
        self._remember()
        return len(self.ended) < self._count or self.live[0].mean > self.ended[-1].mean

    def _totals(self, logits: "torch.Tensor") -> "torch.Tensor":
        """Give the score (rows, n_vocab) of each hypothesis with each token after it."""
        import torch

        scores = logits.log_softmax(-1)
        scores = self._processors.penalise(scores, self._history, len(self.live[0].tokens))
        check(scores.max())
        if self._sampled:
            scores = self._processors.truncate(scores)
        return scores + torch.tensor([[one.score] for one in self.live], device=scores.device)

    def _pick(self, totals: "torch.Tensor") -> list[Hypothesis]:
        """Give the best continuations, or some drawn without replacement, in the order in which they were drawn."""
        import torch

        keys = totals.clone()
        if self._sampled:  # adding Gumbel noise and taking the largest draws without replacement (Kool et al. 2019)
            noise = torch.rand(totals.shape, generator=self._generator, device=totals.device)
            keys += -(-(noise.clamp_min(1e-20).log())).log()
        while True:
            places = keys.flatten().topk(min(self._kept * self._count, keys.numel())).indices.tolist()
            found = [divmod(place, keys.shape[1]) for place in places]
            banned = [(row, token) for row, token in found if self._banned and self._refuses(row, token)]
            for row, token in banned:
                keys[row, token] = _NEVER
            if not banned:
                break
        check(keys.max())
        picked = [(row, token, float(totals[row, token])) for row, token in found if keys[row, token] > _NEVER]
        return [self._longer(row, token, score) for row, token, score in picked]

    def _refuses(self, row: int, token: int) -> bool:
        return self._banned.completes(self.live[row].tail, token)

    def _longer(self, row: int, token: int, score: float) -> Hypothesis:
        old = self.live[row]
        tail = self._banned.after(old.tail, token) if self._banned else b""
        return Hypothesis((*old.tokens, token), old.text + self._vocabulary.piece(token), tail, score, row)

    def _full(self, hypothesis: Hypothesis) -> bool:
        """Whether it has reached the limit or holds a stop string."""
        if len(hypothesis.tokens) >= self._limit:
            return True
        recent = len(self._vocabulary.piece(hypothesis.tokens[-1])) + max(map(len, self._stops), default=0)
        return any(stop in hypothesis.text[-recent:] for stop in self._stops)

    def _remember(self) -> None:
        import torch

        rows = self._history[[one.row for one in self.live]]
        last = torch.tensor([[one.tokens[-1]] for one in self.live], device=rows.device)
        self._history = torch.cat([rows, last], 1)

    def leading(self) -> Hypothesis:
        """Give the hypothesis that would be the answer if the search ended here."""
        return max([*self.ended[:1], *self.live[:1]], key=lambda one: one.mean)

    def settled(self) -> int:
        """Give how many tokens all hypotheses that may still be the answer begin with alike."""
        return _common([one.tokens for one in (*self.live, *self.ended[:1])])


def search(
    runner: Runner,
    vocabulary: Vocabulary,
    found: Search,
    logits: "torch.Tensor",
    generation: Generation,
    stop: Stop,
) -> Generator[Event, None, tuple[int, FinishReason]]:
    """Search for the best answer to the prompt that gave `logits`; give its length in tokens and why it ended.

    Text events before the last are settled; Beams events show what is still open.
    """
    stops = generation.stop or ()
    out, fed, counted, cancelled = TextStream(stops), 0, 0, False
    held: list[tuple[int, ...]] = [()]
    try:
        while found.advance(logits):
            yield _beams(found.live, stops)
            settled = found.settled()
            delta = out.feed(_text(vocabulary, found.live[0].tokens[fed:settled]))
            fed = settled
            if delta:
                yield Text(delta, fed - counted)
                counted = fed
            if cancelled := stop():
                break
            logits = runner.step_rows([one.tokens[-1] for one in found.live], [one.row for one in found.live])
            held = [one.tokens for one in found.live]
        best = found.leading()
    finally:
        _keep(runner, held, found.leading().tokens)
    yield _beams([best, *(one for one in (*found.ended, *found.live) if one is not best)], stops)
    ends = best.tokens[-1] in ending(vocabulary, generation)
    if rest := out.feed(_text(vocabulary, best.tokens[fed:])) + out.finish():
        yield Text(rest, len(best.tokens) - ends - counted)
    return len(best.tokens), "stop" if ends or out.stopped else "cancelled" if cancelled else "length"


def _keep(runner: Runner, held: Sequence[tuple[int, ...]], best: tuple[int, ...]) -> None:
    """Leave in the cache the row that has most in common with the answer."""
    if runner.tokens:  # after a failure there is no cache
        row = max(range(len(held)), key=lambda one: _common([held[one], best]))
        runner.settle(row, held[row])


def _beams(hypotheses: Iterable[Hypothesis], stops: Iterable[str]) -> Beams:
    return Beams(tuple((TextStream(stops).feed(one.text), one.score) for one in hypotheses))


def _text(vocabulary: Vocabulary, tokens: Iterable[int]) -> bytes:
    return b"".join(map(vocabulary.piece, tokens))


def _common(sequences: Sequence[tuple[int, ...]]) -> int:
    """Give the length of the longest common prefix."""
    low, high = min(sequences), max(sequences)
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
