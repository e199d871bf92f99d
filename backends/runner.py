"""A PyTorch model and its KV cache: tokens in, logits out, the longest common prefix kept between prompts."""

import inspect
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CHUNK = 512
"""Tokens of a prompt that are read at once, at most."""
_FIRST, _LEAST, _PATIENCE = 16, 8, 0.1
_SCORED = 128


class Runner:
    """Runs `model`, a causal language model of transformers. `tokens` are those that the cache holds."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.tokens: list[int] = []
        self._cache: Any = None
        self._chunk, self._fastest = (_FIRST if self.device.type == "cpu" else CHUNK), float("inf")
        names = inspect.signature(model.forward).parameters
        # Code of a stranger may lack the parameter; then every position's logits are computed, and the last kept.
        self._last: dict[str, int] = {"logits_to_keep": 1} if "logits_to_keep" in names else {}
        self._slot = "cache_params" if "cache_params" in names else "past_key_values"  # Mamba has the former
        self._whole = any("LinearAttention" in type(layer).__name__ for layer in self._empty().layers)

    @property
    def device(self) -> "torch.device":
        """Where the tokens go in."""
        return self.model.get_input_embeddings().weight.device

    def _empty(self) -> Any:
        from transformers import DynamicCache  # loaded already, with the model

        cache = DynamicCache(config=self.model.config)
        for layer in cache.layers:
            record = getattr(layer, "activate_past_recording", None)
            if record and getattr(layer, "is_sliding", False):
                record()  # else nothing can be taken back once the window is full
        return cache

    def reuse(self, ids: Sequence[int]) -> int:
        """Keep the cache of the longest common prefix with `ids`; give its length. One token is always read again."""
        keep = 0
        for old, new in zip(self.tokens, ids[:-1], strict=False):
            if old != new:
                break
            keep += 1
        return keep if self._crop(keep) else 0

    def _crop(self, keep: int) -> bool:
        surplus = len(self.tokens) - keep
        if surplus and keep and not self._take_back(surplus):
            keep = 0
        if not keep:
            self.forget()
            return False
        self.tokens = self.tokens[:keep]
        return True

    def _take_back(self, surplus: int) -> bool:
        if not all(_holds(layer, surplus) for layer in self._cache.layers):
            return False
        try:
            self._cache.crop(-surplus)
        except (RuntimeError, ValueError, AttributeError):  # recurrent models cannot go back
            return False
        return True

    def forget(self) -> None:
        """Empty the cache."""
        self._cache, self.tokens = None, []

    def read(self, ids: Sequence[int]) -> Iterator["torch.Tensor"]:
        """Read the rest of the prompt `ids` a chunk at a time; yield the logits (1, n_vocab) after each.

        Chunks are sized so that one takes about a tenth of a second: between two of them the caller may stop.
        Recurrent layers (Mamba and its kin) take a prompt in whole or token by token.
        """
        while (start := len(self.tokens)) < len(ids):
            chunk = list(ids[start:] if self._whole else ids[start : start + self._chunk])
            began = time.perf_counter()
            logits = self._forward([chunk])
            self._wait()
            self.tokens += chunk
            self._adjust(len(chunk), time.perf_counter() - began)
            yield logits

    def _wait(self) -> None:
        """Wait for the GPU: else all chunks would be under way before the caller is asked whether to go on."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def _adjust(self, size: int, seconds: float) -> None:
        """Choose the size of the next chunk; a model whose weights alone take longer is given that time."""
        self._fastest = min(self._fastest, seconds)
        allowed = max(_PATIENCE, 1.25 * self._fastest)
        if seconds > 2 * allowed:
            self._chunk = max(_LEAST, size // 2)
        elif seconds < allowed / 2 or (seconds < allowed and allowed > _PATIENCE):
            self._chunk = min(CHUNK, 2 * size) if size == self._chunk else self._chunk

    def step(self, token: int) -> "torch.Tensor":
        """Read one more token; give the logits (1, n_vocab) after it."""
        logits = self._forward([[token]])
        self.tokens.append(token)
        return logits

    def step_rows(self, tokens: Sequence[int], parents: Sequence[int]) -> "torch.Tensor":
        """Read one token a row, row i going on from what was row `parents[i]`; give the logits (rows, n_vocab).

        `tokens` of this object stays what all rows have in common until `settle`.
        """
        self._reorder(parents)
        return self._forward([[token] for token in tokens])

    def settle(self, row: int, tokens: Sequence[int]) -> None:
        """Keep one row alone, which holds `tokens` after those that all rows share."""
        self._reorder([row])
        self.tokens += tokens

    def _reorder(self, rows: Sequence[int]) -> None:
        import torch

        try:
            self._cache.reorder_cache(torch.tensor(rows, device=self.device))
        except BaseException:
            self.forget()
            raise

    def _forward(self, rows: list[list[int]]) -> "torch.Tensor":
        import torch

        if self._cache is None:
            self._cache = self._empty()
        try:
            with torch.inference_mode():
                ids = torch.tensor(rows, device=self.device)
                out = self.model(input_ids=ids, use_cache=True, **{self._slot: self._cache}, **self._last)
                return out.logits[:, -1, :].float()
        except BaseException:
            self.forget()  # some layers may have taken the tokens in, others not
            raise

    def scores(self, tokens: Sequence[int]) -> Iterator["torch.Tensor"]:
        """Yield float32 logits (n, n_vocab) after each of the next n tokens, from an empty cache of its own."""
        import torch

        cache, size = self._empty(), len(tokens) if self._whole else _SCORED
        for start in range(0, len(tokens), size):
            with torch.inference_mode():
                ids = torch.tensor([list(tokens[start : start + size])], device=self.device)
                yield self.model(input_ids=ids, use_cache=True, **{self._slot: cache}).logits[0].float()


def _holds(layer: Any, surplus: int) -> bool:
    """Whether a layer with a sliding window still has the tokens that its window needs after `surplus` go."""
    if not getattr(layer, "is_sliding", False):
        return True
    need = min(layer.sliding_window - 1, layer.get_seq_length() - surplus)
    return layer.keys.shape[-2] - surplus >= need
