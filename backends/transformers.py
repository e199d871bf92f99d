"""Hugging Face models through transformers: our own decode loop on the model's forward, one KV cache kept."""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import BackendError, UsageError
from ..core.i18n import _
from ..core.progress import Progress
from . import checkpoint, placement, threads
from .base import (
    DEFAULT_ANSWER,
    DEFAULT_CONTEXT,
    DEFAULTS,
    Backend,
    Done,
    Event,
    Generation,
    LoadOptions,
    ModelFiles,
    ModelInfo,
    Notice,
    Prefill,
    Prompt,
    Stop,
)
from .beams import Search, search
from .decode import decode
from .hf_vocab import Vocabulary
from .lora import Adapters
from .runner import Runner
from .sampling import Sampler

if TYPE_CHECKING:
    import numpy as np
    import torch

_TRAINED = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
"""What configurations call the context a model was trained with."""


class TransformersBackend(Backend):
    """Safetensors and PyTorch folders on CUDA, MPS or the CPU."""

    name: ClassVar[str] = "transformers"
    supports: ClassVar[frozenset[str]] = frozenset(
        {
            "max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty",
            "repetition_window", "no_repeat_ngram_size", "presence_penalty", "frequency_penalty", "num_beams", "seed",
            "stop", "stop_token_ids", "banned_strings", "logprobs", "adapters", "score", "pieces",
        }
    )  # fmt: skip

    def __init__(self) -> None:
        self.info = None
        self._runner: Any = None
        self._adapters: Any = None
        self._lock = threading.Lock()

    @classmethod
    def unavailable(cls) -> str | None:
        return placement.missing("transformers", "torch", "transformers", "accelerate")

    # Loading

    def load(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> ModelInfo:
        self._check(options)
        progress("load", 0, 0)  # importing takes two seconds
        with checkpoint.mapped(model.path):
            loaded = self._weights(model, options, progress)
            folder, rows = self._folder(model), checkpoint.rows(loaded)
            self._vocabulary = Vocabulary(folder, rows, checkpoint.ends(loaded), options.remote_code)
        self._threads = options.threads or threads.default(checkpoint.parameters(loaded))
        checkpoint.use_threads(self._threads)
        self._runner, self._adapters = Runner(loaded), Adapters(loaded)
        self.info = self._describe(loaded, options)
        progress("load", 1, 1)
        return self.info

    def _check(self, options: LoadOptions) -> None:
        """Refuse what this engine cannot do, rather than ignore it."""
        if options.gpu_layers is not None:
            raise UsageError(
                _("--gpu-layers has no meaning with {backend}.").format(backend=self.name),
                _("Use `--device cpu` or `--device cuda`."),
            )

    def _folder(self, model: ModelFiles) -> Path:
        return model.path if model.path.is_dir() else model.path.parent

    def _weights(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> Any:
        """Give the model of transformers, ready to run."""
        return checkpoint.load(self._folder(model), options, progress)

    def _describe(self, loaded: Any, options: LoadOptions) -> ModelInfo:
        vocabulary, config = self._vocabulary, loaded.config
        text = config.get_text_config()
        trained = next((value for name in _TRAINED if isinstance(value := getattr(text, name, None), int)), 0)
        context = options.context or min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        if rows := checkpoint.positions(loaded):
            context = min(context, rows, trained or rows)
        devices = dict.fromkeys(str(one.device) for one in (*loaded.parameters(), *loaded.buffers()))
        return ModelInfo(
            backend=self.name,
            architecture=str(config.model_type),
            context=context,
            trained_context=trained,
            vocabulary=checkpoint.rows(loaded),
            parameters=checkpoint.parameters(loaded),
            device=", ".join(name for name in devices if name != "cpu") or "cpu",
            threads=self._threads,
            dtype=self._dtype(loaded, options),
            bos=vocabulary.text_of(vocabulary.bos),
            eos=vocabulary.text_of(vocabulary.eos),
            adds_bos=vocabulary.adds_bos,
            specials=vocabulary.specials,
            ends=vocabulary.ends,
            chat_template=vocabulary.template,
        )

    def _dtype(self, loaded: Any, options: LoadOptions) -> str:
        kind = str(loaded.dtype).removeprefix("torch.")
        return f"{options.load_in}, {kind}" if options.load_in else kind

    # Prompt

    def tokenize(self, prompt: Prompt) -> list[int]:
        return self._vocabulary.tokenize(prompt)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        self._known(tokens)
        return [self._vocabulary.shown(token) for token in tokens]

    def _known(self, tokens: Sequence[int]) -> None:
        if any(not 0 <= token < self._vocabulary.size for token in tokens):
            raise BackendError(_("A token id lies outside the vocabulary."))

    # Answer

    def stream(self, prompt: Prompt, generation: Generation, stop: Stop) -> Iterator[Event]:
        ids = self.tokenize(prompt)
        limit = min(generation.max_tokens or DEFAULT_ANSWER, self._room(len(ids)))
        # A beam search is pure unless a temperature was asked for.
        below = replace(DEFAULTS, temperature=0.0) if (generation.num_beams or 1) > 1 else DEFAULTS
        with self._lock:
            yield from self.without_effect(generation)
            with self._memory():
                yield from self._answer(ids, generation.over(below), limit, stop)

    def without_effect(self, wanted: Generation) -> Iterator[Notice]:
        pure = (wanted.num_beams or 1) > 1 and not wanted.temperature
        yield from super().without_effect(replace(wanted, temperature=None) if pure else wanted)
        for name in ("min_p", "seed", "top_k", "top_p") if pure else ():
            if getattr(wanted, name) not in (None, getattr(DEFAULTS, name)):
                yield Notice(_("{name} has no effect in pure beam search.").format(name=name))
        if (wanted.num_beams or 1) > 1 and wanted.logprobs:
            yield Notice(_("{name} has no effect in beam search.").format(name="logprobs"))

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Turn the end of memory into a sentence, and give what was taken back."""
        try:
            yield
            return
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not placement.short_of_memory(error):
                raise
        # Outside the handler: the frames of the error held the tensors.
        self._runner.forget()
        placement.release()
        raise placement.out_of_memory()

    def _answer(self, ids: list[int], generation: Generation, limit: int, stop: Stop) -> Iterator[Event]:
        runner, vocabulary = self._runner, self._vocabulary
        kind = Search if (generation.num_beams or 1) > 1 else Sampler
        choice: Any = kind(generation, vocabulary, ids, limit, runner.device)
        began = time.perf_counter()
        cached, logits = yield from self._prefill(ids, stop)
        prefilled = time.perf_counter()
        count, finish = 0, "cancelled"
        if logits is not None:
            run = search if kind is Search else decode
            count, finish = yield from run(runner, vocabulary, choice, logits, generation, stop)
        decoded = time.perf_counter()
        yield Done(finish, len(ids), cached, count, prefilled - began, decoded - prefilled, choice.seed)

    def _prefill(self, ids: list[int], stop: Stop) -> "Generator[Event, None, tuple[int, torch.Tensor | None]]":
        """Read what the cache does not hold; give how much it held, and the logits at the end unless stopped."""
        cached = self._runner.reuse(ids)
        yield Prefill(cached, len(ids), cached)
        if stop():
            return cached, None
        logits = None
        for step in self._runner.read(ids):
            logits = step
            yield Prefill(len(self._runner.tokens), len(ids), cached)
            if stop():
                return cached, None
        return cached, logits

    # Adapters

    def adapt(self, adapters: Sequence[tuple[Path, float]]) -> None:
        """Replace the active adapters (PEFT folders). The KV cache is dropped: it belongs to the old set."""
        with self._lock:
            if self._adapters.set(adapters):
                self._runner.forget()

    # Scores

    def score(self, tokens: Sequence[int]) -> "Iterator[np.ndarray]":
        """Yield float32 logits (n_vocab,) after each token, from an empty cache."""
        self._known(tokens)
        self._room(len(tokens))
        with self._lock, self._memory():
            for rows in self._runner.scores(tokens):
                yield from rows.cpu().numpy()

    def close(self) -> None:
        with self._lock:
            if self._runner is not None:
                self._runner = self._adapters = None
                placement.release()
