"""Choosing the next token with llama.cpp's samplers, in the order penalties, temperature, top_k, top_p, min_p."""

import ctypes
import secrets
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ..core.errors import UsageError
from ..core.i18n import _
from . import grammar as grammars
from .banned import Banned
from .base import Generation
from .llama_vocab import Vocabulary

_NEVER = float("-inf")


class Sampler:
    """One answer's sampler chain. `generation` has every sampling field set; `prompt` are its token ids.

    `window` is the number of tokens that −1 stands for in `repetition_window`.
    """

    def __init__(
        self, native: Any, vocabulary: Vocabulary, generation: Generation, prompt: Sequence[int], window: int
    ) -> None:
        self._native, self._vocabulary = native, vocabulary
        self.seed = secrets.randbelow(2**32 - 1) if generation.seed is None else generation.seed
        self._chain = native.llama_sampler_chain_init(native.llama_sampler_chain_default_params())
        self._build(generation, window)
        for token in prompt if self._penalises else ():
            native.llama_sampler_accept(self._chain, token)
        self._bans = _Bans(vocabulary, generation, prompt)
        self._grammar = self._grammar_sampler(generation)
        self._candidates: Any = None

    def _build(self, g: Generation, window: int) -> None:
        native, n_vocab = self._native, self._vocabulary.size
        last = window if g.repetition_window == -1 else g.repetition_window or 0
        values = (g.repetition_penalty or 1.0, g.frequency_penalty or 0.0, g.presence_penalty or 0.0)
        self._penalises = last > 0 and values != (1.0, 0.0, 0.0)
        if self._penalises:
            self._add(native.llama_sampler_init_penalties(n_vocab, last, *values))
        if not g.temperature:
            self._add(native.llama_sampler_init_greedy())
            return
        if g.temperature != 1.0:
            self._add(native.llama_sampler_init_temp(g.temperature))
        if g.top_k:
            self._add(native.llama_sampler_init_top_k(g.top_k))
        if g.top_p is not None and g.top_p < 1.0:
            self._add(native.llama_sampler_init_top_p(g.top_p, 1))
        if g.min_p:
            self._add(native.llama_sampler_init_min_p(g.min_p, 1))
        self._add(native.llama_sampler_init_dist(self.seed))

    def _add(self, sampler: Any) -> None:
        self._native.llama_sampler_chain_add(self._chain, sampler)

    def _grammar_sampler(self, generation: Generation) -> Any:
        if generation.json_schema is not None:
            text = grammars.from_schema(generation.json_schema)
        elif generation.grammar is not None:
            text = grammars.check(generation.grammar)
        else:
            return None
        sampler = self._native.llama_sampler_init_grammar(
            self._vocabulary.pointer, text.encode("utf-8", "replace"), b"root"
        )
        if not sampler:
            raise UsageError(
                _("The grammar does not parse."), _("See the GBNF guide of llama.cpp (grammars/README.md).")
            )
        return sampler

    def sample(self, context: Any) -> int:
        """Draw the next token from the logits of the last decode."""
        if self._bans.active:
            self._bans.apply(self._native.llama_get_logits_ith(context, -1))
        if self._grammar is None and not self._bans.banned:
            token = self._native.llama_sampler_sample(self._chain, context, -1)
        else:
            token = self._sample_tested(context)
        self._bans.accept(token)
        return token

    def _sample_tested(self, context: Any) -> int:
        """Draw freely and test that one token; only when the grammar refuses it, weigh the whole vocabulary.

        Same tokens as grammar first, thirty times faster on 32,000 tokens. The grammar never comes after a sampler
        that cuts candidates: with none left that it allows, the library terminates the process.
        """
        native = self._native
        token = self._draw(context, constrained=False)
        if self._grammar is not None and not self._allowed(token):
            token = self._draw(context, constrained=True)
        while self._bans.completes(token):
            native.llama_get_logits_ith(context, -1)[token] = _NEVER
            token = self._draw(context, constrained=self._grammar is not None)
        native.llama_sampler_accept(self._chain, token)
        if self._grammar is not None:
            native.llama_sampler_accept(self._grammar, token)
        return token

    def _draw(self, context: Any, constrained: bool) -> int:
        import numpy as np  # 80 ms, and only grammars and banned strings need it

        native, size = self._native, self._vocabulary.size
        if self._candidates is None:
            self._candidates = np.zeros(size, dtype=[("id", "i4"), ("logit", "f4"), ("p", "f4")])
        logits = np.ctypeslib.as_array(native.llama_get_logits_ith(context, -1), (size,))
        self._candidates["id"], self._candidates["logit"] = np.arange(size), logits
        data = self._candidates.ctypes.data_as(native.llama_token_data_p)
        array = native.llama_token_data_array(data=data, size=size, selected=-1, sorted=False)
        if constrained:
            native.llama_sampler_apply(self._grammar, ctypes.byref(array))
        native.llama_sampler_apply(self._chain, ctypes.byref(array))
        return array.data[array.selected].id

    def _allowed(self, token: int) -> bool:
        native = self._native
        one = (native.llama_token_data * 1)(native.llama_token_data(id=token, logit=0.0, p=0.0))
        array = native.llama_token_data_array(data=one, size=1, selected=-1, sorted=False)
        native.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return one[0].logit != _NEVER

    def close(self) -> None:
        """Free the native samplers."""
        self._native.llama_sampler_free(self._chain)
        if self._grammar is not None:
            self._native.llama_sampler_free(self._grammar)


class _Bans:
    """What must not come next: an end before `min_tokens`, a repeated n-gram, the last piece of a banned string.

    N-grams as in transformers (NoRepeatNGramLogitsProcessor).
    """

    def __init__(self, vocabulary: Vocabulary, generation: Generation, prompt: Sequence[int]) -> None:
        ends = vocabulary.end_ids | set(generation.stop_token_ids or ())
        self._ends = tuple(token for token in ends if 0 <= token < vocabulary.size)
        self._least = generation.min_tokens or 0
        self._size = generation.no_repeat_ngram_size or 0
        self.banned = Banned(generation.banned_strings or (), vocabulary.piece)
        self.active = bool(self._least or self._size or self.banned)
        self._generated = 0
        self._tail = b""
        self._history: list[int] = []
        self._followers: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
        for token in prompt if self._size else ():
            self._remember(token)

    def apply(self, logits: Any) -> None:
        """Take out of `logits` the tokens that must not come whatever the text."""
        if self._generated < self._least:
            for token in self._ends:
                logits[token] = _NEVER
        if self._size:
            head = tuple(self._history[len(self._history) - self._size + 1 :])
            for token in self._followers.get(head, ()):
                logits[token] = _NEVER

    def completes(self, token: int) -> bool:
        """Whether the answer would hold a banned string after `token`."""
        return self.banned.completes(self._tail, token)

    def accept(self, token: int) -> None:
        """Note that `token` was chosen."""
        if not self.active:
            return
        self._generated += 1
        if self._size:
            self._remember(token)
        if self.banned:
            self._tail = self.banned.after(self._tail, token)

    def _remember(self, token: int) -> None:
        self._history.append(token)
        if len(self._history) >= self._size:
            *head, last = self._history[-self._size :]
            self._followers[tuple(head)].add(last)
