"""Choosing the next token from logits in PyTorch, in the order penalties, temperature, top_k, top_p, min_p, draw.

The same arithmetic as the LogitsProcessors of transformers 5 and, for presence and frequency, as llama.cpp's
llama_sampler_penalties.
"""

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.errors import BackendError
from ..core.i18n import _
from .banned import Banned
from .base import Generation
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

_NEVER = float("-inf")


class Processors:
    """What is done to scores before a token is chosen. `generation` has every sampling field set.

    `keep` is the number of candidates that top_p and min_p leave at least (transformers: 1 + ends for beams).
    """

    def __init__(self, generation: Generation, ends: Sequence[int], keep: int = 1) -> None:
        self._wanted, self._ends, self._keep = generation, list(ends), keep
        g = generation
        self._repeats = g.repetition_window != 0 and (g.repetition_penalty or 1.0) != 1.0
        self._counts = g.repetition_window != 0 and bool(g.presence_penalty or g.frequency_penalty)

    def penalise(self, scores: "torch.Tensor", history: "torch.Tensor", generated: int) -> "torch.Tensor":
        """Give `scores` (rows, n_vocab), float32, changed by `history` (rows, n), the ids of prompt and answer.

        `generated` is the length of the answer so far; before min_tokens no end may come.
        """
        window = self._wanted.repetition_window or 0
        recent = history if window < 0 else history[:, -window:]
        if self._repeats:
            scores = _repetition(scores, recent, self._wanted.repetition_penalty or 1.0)
        if self._counts:
            scores = _counted(
                scores, recent, self._wanted.frequency_penalty or 0.0, self._wanted.presence_penalty or 0.0
            )
        if self._wanted.no_repeat_ngram_size:
            scores = _no_repeated_ngram(scores, history, self._wanted.no_repeat_ngram_size)
        if generated < (self._wanted.min_tokens or 0):
            scores = scores.clone()
            scores[:, self._ends] = _NEVER
        return scores

    def truncate(self, scores: "torch.Tensor") -> "torch.Tensor":
        """Give `scores` (rows, n_vocab) divided by the temperature, −∞ for what top_k, top_p and min_p leave out."""
        g = self._wanted
        scores = scores / (g.temperature or 1.0)
        if g.top_k:
            scores = _top_k(scores, max(g.top_k, self._keep))
        if g.top_p is not None and g.top_p < 1.0:
            scores = _top_p(scores, g.top_p, self._keep)
        if g.min_p:
            scores = _min_p(scores, g.min_p, self._keep)
        return scores


class Sampler:
    """One answer's choices, greedy at temperature 0. `prompt` are token ids, `limit` the most tokens of the answer."""

    def __init__(
        self, generation: Generation, vocabulary: Vocabulary, prompt: Sequence[int], limit: int, device: "torch.device"
    ) -> None:
        import torch

        self.seed = secrets.randbelow(2**32 - 1) if generation.seed is None else generation.seed
        self.limit = limit
        self._greedy = not generation.temperature
        self._generator = torch.Generator(device).manual_seed(self.seed)
        self._processors = Processors(generation, ending(vocabulary, generation))
        self._banned, self._tail = Banned(generation.banned_strings or (), vocabulary.piece), b""
        self._history = torch.empty((1, len(prompt) + limit), dtype=torch.long, device=device)
        self._history[0, : len(prompt)] = torch.tensor(prompt)
        self._length, self._prompt = len(prompt), len(prompt)

    def sample(self, logits: "torch.Tensor") -> int:
        """Give the next token after `logits` (1, n_vocab), float32. Raises BackendError when they are no numbers."""
        import torch

        with torch.inference_mode():
            history = self._history[:, : self._length]
            scores = self._processors.penalise(logits, history, self._length - self._prompt)
            token = self._draw(scores)
            while self._banned and self._banned.completes(self._tail, token):
                scores = scores.clone()
                scores[0, token] = _NEVER
                token = self._draw(scores)
            self._history[0, self._length] = token
        self._length += 1
        if self._banned:
            self._tail = self._banned.after(self._tail, token)
        return token

    def _draw(self, scores: "torch.Tensor") -> int:
        import torch

        top, token = scores[0].max(-1)
        check(top)
        if self._greedy:
            return int(token)
        chances = self._processors.truncate(scores).softmax(-1)
        return int(torch.multinomial(chances[0], 1, generator=self._generator))


def ending(vocabulary: Vocabulary, generation: Generation) -> list[int]:
    """Give the ids that end an answer."""
    ends = vocabulary.end_ids | set(generation.stop_token_ids or ())
    return sorted(token for token in ends if 0 <= token < vocabulary.size)


def check(top: "torch.Tensor") -> None:
    """Refuse scores whose largest is no number, or that leave nothing. Raises BackendError."""
    value = float(top)
    if value != value or value == float("inf"):
        raise BackendError(
            _("The model computed values that are no numbers."),
            _("Try `--dtype bf16` or `--dtype f32`; if it stays so, its files are damaged."),
        )
    if value == _NEVER:
        raise BackendError(_("No token may come next."), _("Ban fewer strings, or raise no_repeat_ngram_size."))


def _repetition(scores: "torch.Tensor", history: "torch.Tensor", penalty: float) -> "torch.Tensor":
    import torch

    seen = scores.gather(1, history)
    return scores.scatter(1, history, torch.where(seen < 0, seen * penalty, seen / penalty))


def _counted(scores: "torch.Tensor", history: "torch.Tensor", frequency: float, presence: float) -> "torch.Tensor":
    import torch

    counts = torch.zeros_like(scores).scatter_add_(1, history, torch.ones_like(history, dtype=scores.dtype))
    return scores - counts * frequency - (counts > 0) * presence


def _no_repeated_ngram(scores: "torch.Tensor", history: "torch.Tensor", size: int) -> "torch.Tensor":
    if history.shape[1] < size:
        return scores
    grams = history.unfold(1, size, 1)  # (rows, n - size + 1, size)
    head = history[:, history.shape[1] - size + 1 :]
    row, place = (grams[:, :, :-1] == head[:, None, :]).all(-1).nonzero(as_tuple=True)
    scores = scores.clone()
    scores[row, grams[row, place, -1]] = _NEVER
    return scores


def _top_k(scores: "torch.Tensor", k: int) -> "torch.Tensor":
    least = scores.topk(min(k, scores.shape[-1])).values[:, -1:]
    return scores.masked_fill(scores < least, _NEVER)


def _top_p(scores: "torch.Tensor", p: float, keep: int) -> "torch.Tensor":
    ordered, places = scores.sort(descending=False)
    out = ordered.softmax(-1).cumsum(-1) <= 1 - p
    out[:, -keep:] = False
    return scores.masked_fill(out.scatter(1, places, out), _NEVER)


def _min_p(scores: "torch.Tensor", p: float, keep: int) -> "torch.Tensor":
    chances = scores.softmax(-1)
    out = chances < p * chances.amax(-1, keepdim=True)
    out.scatter_(1, scores.topk(min(keep, scores.shape[-1])).indices, False)
    return scores.masked_fill(out, _NEVER)
