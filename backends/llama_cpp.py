"""GGUF models through llama.cpp's own C API: one decode loop, one sampler chain, one KV cache kept between turns.

The API's traps that this file goes around were measured on llama-cpp-python 0.3.36: `llama_decode` aborts the
process for more tokens than n_batch, state files of the same shape load into a different model, and an adapter
switch leaves the KV cache of the old one.
"""

import _thread
import ctypes
import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import BackendError, CapacityError, FormatError, UsageError
from ..core.i18n import _
from ..core.progress import Progress
from . import llama_native, llama_state, threads
from .base import (
    DEFAULT_ANSWER,
    DEFAULT_CONTEXT,
    DEFAULTS,
    Backend,
    Chosen,
    Done,
    Event,
    FinishReason,
    Generation,
    LoadOptions,
    ModelFiles,
    ModelInfo,
    Prefill,
    Prompt,
    Stop,
    Text,
)
from .llama_sampler import Sampler
from .llama_vocab import Vocabulary
from .text import TextStream
from .weigh import weigh

if TYPE_CHECKING:
    import numpy as np

BATCH = 512
"""Tokens a decode call: the step of prefill progress, and of what is kept when a prefill is stopped."""
MAX_THREADS = 512
"""GGML_MAX_N_THREADS: one more and the library crashes."""
_ALL_LAYERS = 999


class LlamaCppBackend(Backend):
    """llama.cpp on the CPU, or on the GPU where llama-cpp-python was built for one."""

    name: ClassVar[str] = "llama.cpp"
    supports: ClassVar[frozenset[str]] = frozenset(
        {
            "max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty",
            "repetition_window", "no_repeat_ngram_size", "presence_penalty", "frequency_penalty", "seed", "stop",
            "stop_token_ids", "banned_strings", "json_schema", "grammar", "logprobs", "adapters", "state", "score",
            "pieces",
        }
    )  # fmt: skip

    def __init__(self) -> None:
        self.info = None
        self._native: Any = None
        self._model: Any = None
        self._context: Any = None
        self._cached: list[int] = []
        self._loaded_adapters: dict[Path, Any] = {}
        self._adapters: tuple[tuple[str, float], ...] = ()
        self._lock = threading.Lock()

    @classmethod
    def unavailable(cls) -> str | None:
        return llama_native.unavailable()

    # Loading

    def load(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> ModelInfo:
        native = self._native = llama_native.bindings()
        self._check(native, options)
        llama_native.messages.clear()
        self._path = model.path
        self._model = self._load_model(native, model, options, progress)
        parameters = native.llama_model_n_params(self._model)
        self._threads = min(options.threads or threads.default(parameters), MAX_THREADS)
        self._context = self._make_context(native, options)
        self._abort = llama_native.AbortFlag(native, self._context)
        self._vocabulary = Vocabulary(native, self._model)
        self._token = (native.llama_token * 1)()
        self._batch = (native.llama_token * BATCH)()
        self.info = self._describe(native, parameters, options)
        return self.info

    def _check(self, native: Any, options: LoadOptions) -> None:
        """Refuse what this engine cannot do, rather than ignore it."""
        for flag, value in (("--dtype", options.dtype), ("--load-in", options.load_in)):
            if value:
                raise UsageError(
                    _("{flag} has no meaning for a GGUF file, whose weights have their types already.").format(
                        flag=flag
                    ),
                    _("Leave it out."),
                )
        wanted = options.device if options.device not in (None, "auto", "cpu") else None
        if options.device != "cpu" and (options.gpu_layers or 0) > 0:
            wanted = wanted or f"--gpu-layers {options.gpu_layers}"
        if wanted and not native.llama_supports_gpu_offload():
            raise UsageError(
                _("This llama-cpp-python was built for the CPU only, so {device} cannot be used.").format(
                    device=wanted
                ),
                _('Build it for your GPU: CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall llama-cpp-python'),
            )

    def _gpu_layers(self, options: LoadOptions) -> int:
        if options.device == "cpu":
            return 0
        return _ALL_LAYERS if options.gpu_layers is None else options.gpu_layers

    def _load_model(self, native: Any, model: ModelFiles, options: LoadOptions, progress: Progress) -> Any:
        params = native.llama_model_default_params()
        params.n_gpu_layers = self._gpu_layers(options)

        def report(fraction: float, _data: object) -> bool:
            progress("load", round(fraction * 1000), 1000)
            return True

        callback = native.llama_progress_callback(report)
        params.progress_callback = callback
        pointer = native.llama_model_load_from_file(os.fsencode(model.path), params)
        if not pointer:
            raise FormatError(
                _("llama.cpp cannot load {path}: {reason}.").format(
                    path=model.path, reason=llama_native.reason(_("no reason given"))
                ),
                _("`vigtui show {path}` tells what the file is.").format(path=model.path),
            )
        if not native.llama_model_has_decoder(pointer):
            raise FormatError(
                _("{path} is not a model that writes text.").format(path=model.path),
                _("Choose a chat or instruct model."),
            )
        return pointer

    def _make_context(self, native: Any, options: LoadOptions) -> Any:
        trained = native.llama_model_n_ctx_train(self._model)
        params = native.llama_context_default_params()
        self._limit = options.context or min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        params.n_ctx = max(self._limit, BATCH)  # the library also shortens the batch to a short context, and aborts
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = self._threads
        params.no_perf = True
        self._tune(params)
        context = native.llama_init_from_model(self._model, params)
        if not context:
            raise CapacityError(
                _("A context of {tokens} tokens cannot be set up: {reason}.").format(
                    tokens=self._limit, reason=llama_native.reason(_("not enough memory"))
                ),
                _("Try a smaller one with `--ctx 2048`."),
            )
        return context

    def _tune(self, params: Any) -> None:
        """Let a comparison change the context's parameters (flash attention, types of the KV cache)."""

    def _describe(self, native: Any, parameters: int, options: LoadOptions) -> ModelInfo:
        template = native.llama_model_chat_template(self._model, None)
        description = ctypes.create_string_buffer(256)
        native.llama_model_desc(self._model, description, len(description))
        gpu = native.llama_supports_gpu_offload() and self._gpu_layers(options) != 0
        vocabulary = self._vocabulary
        return ModelInfo(
            backend=self.name,
            architecture=self._metadata("general.architecture"),
            context=min(self._limit, native.llama_n_ctx(self._context)),
            trained_context=native.llama_model_n_ctx_train(self._model),
            vocabulary=vocabulary.size,
            parameters=parameters,
            device="gpu" if gpu else "cpu",
            threads=self._threads,
            dtype=description.value.decode("utf-8", "replace"),
            bos=vocabulary.text_of(vocabulary.bos),
            eos=vocabulary.text_of(vocabulary.eos),
            adds_bos=vocabulary.adds_bos,
            specials=vocabulary.specials,
            ends=vocabulary.ends,
            chat_template=template.decode("utf-8", "replace") if template else None,
        )

    def _metadata(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(256)
        length = self._native.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else ""

    # Prompt

    def tokenize(self, prompt: Prompt) -> list[int]:
        return self._vocabulary.tokenize(prompt)

    def _reuse(self, ids: Sequence[int]) -> int:
        """Keep the KV cache of the longest common prefix; give its length. One token is always read again."""
        keep = 0
        for old, new in zip(self._cached, ids[:-1], strict=False):
            if old != new:
                break
            keep += 1
        if keep < len(self._cached) and not self._forget_after(keep):
            keep = 0
        return keep

    def _forget_after(self, keep: int) -> bool:
        native = self._native
        memory = native.llama_get_memory(self._context)
        done = native.llama_memory_seq_rm(memory, 0, keep, -1)
        if not done:  # recurrent and sliding-window models cannot drop a tail
            native.llama_memory_clear(memory, True)
        self._cached = self._cached[:keep] if done else []
        return done

    def _prefill(self, ids: Sequence[int], stop: Stop) -> Generator[Event, None, int]:
        """Read what the cache does not hold and give how much it held.

        `self._cached` grows to all of `ids`, or to less when stopped.
        """
        start = cached = self._reuse(ids)
        yield Prefill(cached, len(ids), cached)
        while start < len(ids) and not stop():
            chunk = ids[start : start + BATCH]
            self._batch[: len(chunk)] = chunk
            with self._watched(stop):
                code = self._decode(self._batch, len(chunk))
            if code == 2:
                self._resync(start, chunk)
                return cached
            self._cached += chunk
            start += len(chunk)
            yield Prefill(start, len(ids), cached)
        return cached

    def _decode(self, tokens: Any, count: int) -> int:
        native = self._native
        code = native.llama_decode(self._context, native.llama_batch_get_one(tokens, count))
        if code not in (0, 2):
            raise BackendError(
                _("llama.cpp failed to decode (code {code}): {reason}.").format(
                    code=code, reason=llama_native.reason(_("no reason given"))
                ),
                _("`vigtui doctor` checks the installation."),
            )
        return code

    def _resync(self, start: int, chunk: Sequence[int]) -> None:
        """After an abort: the library kept whole sub-batches; note which tokens those are."""
        memory = self._native.llama_get_memory(self._context)
        kept = self._native.llama_memory_seq_pos_max(memory, 0) + 1 - start
        self._cached += chunk[: max(0, kept)]
        self._abort.clear()

    @contextmanager
    def _watched(self, stop: Stop) -> Iterator[None]:
        """Poll `stop` from a thread while the library computes, and abort the computation when it says so."""
        finished, turn = threading.Event(), threading.Lock()

        def watch() -> None:
            while not finished.wait(0.02):
                with turn:
                    if not finished.is_set() and stop():
                        self._abort.set()
                        return

        # threading's Thread.start never returns when the memory ends while its thread begins.
        _thread.start_new_thread(watch, ())
        try:
            yield
        finally:
            with turn:
                finished.set()
            self._abort.clear()

    # Answer

    def stream(self, prompt: Prompt, generation: Generation, stop: Stop) -> Iterator[Event]:
        wanted, generation = generation, generation.over(DEFAULTS)
        ids = self.tokenize(prompt)
        room = self._room(len(ids))
        with self._lock:
            yield from self.without_effect(wanted)
            sampler = Sampler(self._native, self._vocabulary, generation, ids, window=len(ids) + room)
            try:
                yield from self._answer(
                    ids, generation, sampler, min(generation.max_tokens or DEFAULT_ANSWER, room), stop
                )
            finally:
                sampler.close()

    def _answer(
        self, ids: list[int], generation: Generation, sampler: Sampler, limit: int, stop: Stop
    ) -> Iterator[Event]:
        began = time.perf_counter()
        cached = yield from self._prefill(ids, stop)
        prefilled = time.perf_counter()
        count, finish = 0, "cancelled"
        if len(self._cached) == len(ids):
            out = TextStream(generation.stop or ())
            count, finish = yield from self._loop(sampler, generation, limit, stop, out)
        decoded = time.perf_counter()
        yield Done(finish, len(ids), cached, count, prefilled - began, decoded - prefilled, sampler.seed)

    def _loop(
        self, sampler: Sampler, generation: Generation, limit: int, stop: Stop, out: TextStream
    ) -> Generator[Event, None, tuple[int, FinishReason]]:
        """Generate up to `limit` tokens; give how many there were and why they ended."""
        piece, feed, sample, context = self._vocabulary.piece, out.feed, sampler.sample, self._context
        ends = self._vocabulary.end_ids | set(generation.stop_token_ids or ())
        count, shown, wanted = 0, 0, generation.logprobs
        chosen: list[Chosen] = []
        raw: Any = None
        finish: FinishReason = "length"
        while count < limit:
            if wanted:
                raw = self._logits()
            token = sample(context)
            count += 1
            if token in ends:
                finish = "stop"
                break
            if wanted:
                chosen.append(weigh(raw, token, wanted, self._vocabulary.shown))
            if delta := feed(piece(token)):
                yield Text(delta, count - shown, tuple(chosen) or None)
                shown, chosen = count, []
            if out.stopped:
                return count, "stop"
            if stop():
                finish = "cancelled"
                break
            if count < limit:
                self._token[0] = token
                self._decode(self._token, 1)
                self._cached.append(token)
        if (rest := out.finish()) or (chosen and not out.stopped):
            yield Text(rest, count - shown, tuple(chosen) or None)
        return count, "stop" if out.stopped else finish

    def _logits(self) -> "np.ndarray":
        """Copy the last logits (n_vocab,), float32: the sampler strikes bans out of the library's own."""
        import numpy as np  # only for those who ask

        pointer = self._native.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, (self._vocabulary.size,)).copy()

    # Adapters

    def adapt(self, adapters: Sequence[tuple[Path, float]]) -> None:
        """Replace the active adapters (GGUF files). The KV cache is dropped: it belongs to the old set."""
        native = self._native
        scales: dict[Path, float] = {}
        for path, scale in adapters:  # the library counts an adapter that is listed twice only once
            scales[path] = scales.get(path, 0.0) + scale
        active = tuple((str(path), scale) for path, scale in scales.items())
        if active == self._adapters:
            return
        pointers = [self._load_adapter(path) for path in scales]
        array = (native.llama_adapter_lora_p_ctypes * len(pointers))(*pointers) if pointers else None
        values = (ctypes.c_float * len(pointers))(*scales.values()) if pointers else None
        with self._lock:
            native.llama_set_adapters_lora(self._context, array, len(pointers), values)
            self._adapters = active
            self._forget_after(0)

    def _load_adapter(self, path: Path) -> Any:
        if path not in self._loaded_adapters:
            llama_native.messages.clear()
            pointer = self._native.llama_adapter_lora_init(self._model, os.fsencode(path))
            if not pointer:
                raise FormatError(
                    _("The adapter {path} does not fit this model: {reason}.").format(
                        path=path, reason=llama_native.reason(_("no reason given"))
                    ),
                    _("Use it with the base it was trained on."),
                )
            self._loaded_adapters[path] = pointer
        return self._loaded_adapters[path]

    # State

    def save_state(self, path: Path) -> None:
        """Write the KV cache to `path` and what it belongs to beside it (`path`.json), both atomically."""
        with self._lock:
            llama_state.save(self._native, self._context, path, self._cached, self._fingerprint())

    def load_state(self, path: Path) -> int:
        """Restore a KV cache that `save_state` wrote for the same model, context and adapters; else give 0."""
        with self._lock:
            found = llama_state.load(self._native, self._context, path, self._fingerprint())
            if found is None:
                return 0
            self._cached = found
            if not found:
                self._forget_after(0)
            return len(found)

    def _fingerprint(self) -> dict[str, object]:
        status = self._path.stat()
        return {
            "model": [str(self._path.resolve()), status.st_size, status.st_mtime_ns],
            "context": self._native.llama_n_ctx(self._context),
            "adapters": [list(pair) for pair in self._adapters],
        }

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        self._known(tokens)
        return [self._vocabulary.shown(token) for token in tokens]

    def _known(self, tokens: Sequence[int]) -> None:
        """Refuse ids that would end the process."""
        if any(not 0 <= token < self._vocabulary.size for token in tokens):
            raise BackendError(_("A token id lies outside the vocabulary."))

    # Scores

    def score(self, tokens: Sequence[int]) -> "Iterator[np.ndarray]":
        """Yield float32 logits (n_vocab,) after each token, from an empty cache, in batches of 512 tokens."""
        import numpy as np  # only for measurements

        native, size = self._native, self._vocabulary.size
        self._known(tokens)
        self._room(len(tokens))
        with self._lock:
            self._forget_after(0)
            for start in range(0, len(tokens), BATCH):
                chunk = tokens[start : start + BATCH]
                self._decode_all(native, chunk, start)
                logits = np.ctypeslib.as_array(native.llama_get_logits(self._context), (len(chunk), size))
                yield from logits.copy()
            self._forget_after(0)

    def _decode_all(self, native: Any, chunk: Sequence[int], start: int) -> None:
        """Decode `chunk` at positions from `start`, with logits for every position."""
        batch = native.llama_batch_init(len(chunk), 0, 1)
        try:
            batch.n_tokens = len(chunk)
            for i, token in enumerate(chunk):
                batch.token[i], batch.pos[i] = token, start + i
                batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
            if native.llama_decode(self._context, batch) != 0:
                raise BackendError(_("llama.cpp failed to score a text."))
        finally:
            native.llama_batch_free(batch)

    def close(self) -> None:
        with self._lock:
            if self._context:
                self._native.llama_free(self._context)
            if self._model:
                self._native.llama_model_free(self._model)  # frees its adapters too
            self._context = self._model = None
            self._loaded_adapters.clear()
