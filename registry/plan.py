"""What a model needs before its bytes are fetched or loaded: disk, memory, and the longest context that fits.

Memory = weights + KV cache + compute buffers + vocabulary, in bytes, as llama.cpp takes them (llama-kv-cache.cpp,
llama-context.cpp; the constants were measured on llama-cpp-python 0.3.36, and test_plan.py holds them to real loads):

- weights: the file, which llama.cpp maps. Of some types it makes a copy in a layout for the processor (repack.py);
  the pages they came from stay resident until the system needs them, so they are not counted twice.
- KV cache: 2 · layers · context · kv_heads · head_dim · 2 (f16), keys and values apart where their widths differ, the
  context rounded up to 256. With sliding windows (Gemma, Mistral) it is less: this is the most that it can be.
- compute: batch · 4 · (4 · embedding + 3 · feed_forward) for the activations of one layer, batch · context · 2 for
  the attention mask, vocabulary · 4 for the logits.
- vocabulary: 170 bytes a token and 4 MiB for the graph and what the system maps.

A GPU that holds every layer takes the same; one that holds some takes their share of weights and KV cache.
"""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core.errors import CapacityError
from ..core.i18n import _
from .header import Header, integers

CONTEXT = 4096
"""Tokens of a context that nobody chose, unless the model was trained on fewer."""
BATCH = 512
_STEP = 256
_LONGEST = 1 << 20
_BASE = 4 << 20
_PER_TOKEN = 170


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides memory: `kv_width` is kv_heads · (key + value length) summed over all layers, the rest counts.

    `context` is the length in tokens that the model was trained on, None when it is not known.
    """

    layers: int
    kv_width: int
    embedding: int = 0
    feed_forward: int = 0
    vocabulary: int = 0
    context: int | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What is free, in bytes; None where it cannot be known, and of `gpu` where there is none."""

    disk: int | None = None
    memory: int | None = None
    gpu: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What one form of a model needs and what is free, in bytes; contexts in tokens.

    `fetch` is what is still to be written to the disk. `kv`, `compute`, `memory` and `longest`, the longest context
    that fits, are None when nothing is known of the model's shape. `gpu_layers` of `layers` fit on the GPU.
    """

    label: str
    weights: int
    fetch: int
    context: int
    machine: Machine
    kv: int | None = None
    compute: int | None = None
    longest: int | None = None
    layers: int = 0
    gpu_layers: int | None = None
    recommended: bool = False

    @property
    def memory(self) -> int:
        """Bytes of memory in use while it answers; the weights alone when no more is known."""
        return self.weights + (self.kv or 0) + (self.compute or 0)

    @property
    def fits_disk(self) -> bool:
        """Whether the disk has room for what is still to be fetched."""
        return self.machine.disk is None or self.fetch <= self.machine.disk

    @property
    def fits_memory(self) -> bool:
        """Whether it can run, in memory or on the GPU."""
        free = max(self.machine.memory or 0, self.machine.gpu or 0)
        return self.machine.memory is None or self.memory <= free

    @property
    def fits(self) -> bool:
        """Whether it can be fetched and run."""
        return self.fits_disk and self.fits_memory


def from_header(head: Header) -> Shape | None:
    """Give the shape that a GGUF header states, or None when it does not state it."""
    return from_metadata({**head.metadata, **integers(head, ("head_count_kv", "head_count", "feed_forward_length"))})


def from_metadata(metadata: Mapping[str, Any]) -> Shape | None:
    """Give the shape from GGUF keys, of which per-layer values may be lists (gguf.md, "LLM")."""
    prefix = f"{metadata.get('general.architecture', '')}."

    def find(name: str) -> Any:
        return metadata.get(prefix + name)

    layers, embedding, heads = (
        _count(find(name)) for name in ("block_count", "embedding_length", "attention.head_count")
    )
    if not layers or not embedding or not heads:
        return None
    kv_heads = find("attention.head_count_kv") or heads
    total = sum(map(_count, kv_heads)) if isinstance(kv_heads, list) else layers * _count(kv_heads)
    own = embedding // heads
    width = (_count(find("attention.key_length")) or own) + (_count(find("attention.value_length")) or own)
    experts = _count(find("expert_feed_forward_length")) * (_count(find("expert_used_count")) or 1)
    tokens = metadata.get("tokenizer.ggml.tokens")
    vocabulary = _count(find("vocab_size")) or _count(getattr(tokens, "count", 0))
    feed_forward = max(_count(find("feed_forward_length")), experts)
    return Shape(layers, total * width, embedding, feed_forward, vocabulary, _count(find("context_length")) or None)


def from_config(config: Mapping[str, Any]) -> Shape | None:
    """Give the shape that a config.json states, or None (the names are those of Llama, Falcon, BLOOM and MPT)."""

    def find(*names: str) -> int:
        return next((found for name in names if (found := _count(config.get(name)))), 0)

    layers, heads = find("num_hidden_layers", "n_layer", "n_layers"), find("num_attention_heads", "n_head", "n_heads")
    embedding = find("hidden_size", "n_embed", "n_embd", "d_model")
    if not layers or not heads or not embedding:
        return None
    kv_heads = find("num_key_value_heads", "num_kv_heads", "n_head_kv") or (1 if config.get("multi_query") else heads)
    head = find("head_dim") or embedding // heads
    return Shape(
        layers,
        layers * kv_heads * 2 * head,
        embedding,
        find("intermediate_size", "ffn_hidden_size") or 4 * embedding,
        find("vocab_size"),
        find("max_position_embeddings", "max_seq_len", "seq_length") or None,
    )


def _count(value: Any) -> int:
    """Give a number that can be meant: what a damaged file claims counts as nothing."""
    values = value if isinstance(value, list) else [value]
    return max((one for one in values if type(one) is int and 0 < one < 1 << 31), default=0)


def kv_cache(shape: Shape, context: int) -> int:
    """Give the bytes of the KV cache (f16) for `context` tokens."""
    return 2 * shape.kv_width * rounded(context)


def compute_buffers(shape: Shape, context: int) -> int:
    """Give the bytes that a prefill of one batch takes besides weights and KV cache, vocabulary included."""
    batch, context = min(BATCH, context), rounded(context)
    activations = batch * 4 * (4 * shape.embedding + 3 * shape.feed_forward)
    return activations + batch * context * 2 + shape.vocabulary * (4 + _PER_TOKEN) + _BASE


def rounded(context: int) -> int:
    """Give the context that llama.cpp really sets up: a multiple of 256."""
    return -(-context // _STEP) * _STEP


def longest(weights: int, shape: Shape, free: int) -> int:
    """Give the longest context in tokens for which everything fits into `free` bytes, 0 when none does."""
    most = max(1, (shape.context or _LONGEST) // _STEP)

    def short(steps: int) -> bool:
        context = steps * _STEP
        return weights + kv_cache(shape, context) + compute_buffers(shape, context) > free

    return bisect_left(range(1, most + 1), True, key=short) * _STEP


def plan(
    label: str, weights: int, shape: Shape | None, machine: Machine, context: int | None = None, fetch: int = 0
) -> Plan:
    """Give what a model of `weights` bytes needs at `context` tokens, None being what a load would choose."""
    trained = shape.context if shape else None
    context = context or min(trained or CONTEXT, CONTEXT)
    bare = Plan(label, weights, fetch, context, machine)
    if shape is None:
        return bare
    free = max(machine.memory or 0, machine.gpu or 0) if machine.memory is not None else None
    return replace(
        bare,
        kv=kv_cache(shape, context),
        compute=compute_buffers(shape, context),
        longest=None if free is None else longest(weights, shape, free),
        layers=shape.layers,
        gpu_layers=None if machine.gpu is None else _on_gpu(weights, shape, context, machine.gpu),
    )


def _on_gpu(weights: int, shape: Shape, context: int, free: int) -> int:
    layer = (weights + kv_cache(shape, context)) // shape.layers or 1
    return max(0, min(shape.layers, (free - compute_buffers(shape, context)) // layer))


def table(
    choices: Sequence[tuple[str, int, int]], shape: Shape | None, machine: Machine, context: int | None = None
) -> list[Plan]:
    """Give a plan for each (quantization, bytes, bytes still to fetch) of a repository, one of them recommended.

    That is Q4_K_M when it fits, else the one nearest to four bits that does, of two equally near the larger.
    """
    plans = [plan(label, weights, shape, machine, context, fetch) for label, weights, fetch in choices]
    fitting = [one for one in plans if one.fits]
    best = min(fitting, key=distance, default=None)
    return [replace(one, recommended=one is best) for one in plans]


def distance(one: Plan) -> tuple[int, bool, int]:
    """Give how far a plan's quantization is from Q4_K_M, to sort by."""
    named = re.search(r"(?i)(?:I?Q|F)(\d+)", one.label)
    return abs((int(named[1]) if named else 16) - 4), one.label.upper() != "Q4_K_M", -one.weights


def require(one: Plan, name: str) -> None:
    """Raise CapacityError, with the largest context that would do, when the plan for the model `name` does not fit."""
    free = one.machine
    if not one.fits_disk:
        raise CapacityError(
            _("{name} needs {size} MB of disk, and only {free} MB are free.").format(
                name=name, size=one.fetch >> 20, free=(free.disk or 0) >> 20
            ),
            _("Make room, or choose a smaller quantization; --force tries all the same."),
        )
    if not one.fits_memory:
        hint = _("Close other programs, or choose a smaller quantization; --force tries all the same.")
        if one.longest:
            hint = _("A context of {tokens} tokens fits: --ctx {tokens}.").format(tokens=one.longest)
        raise CapacityError(
            _("{name} takes {size} MB at a context of {context} tokens, and only {free} MB of memory are free.").format(
                name=name, size=one.memory >> 20, context=one.context, free=max(free.memory or 0, free.gpu or 0) >> 20
            ),
            hint,
        )
