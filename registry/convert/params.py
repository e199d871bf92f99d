"""The sizes of a LLaMA as Meta's params.json states them, and as Hugging Face's config.json does.

Reference: ModelArgs and FeedForward in llama/model.py of Meta; the feed-forward width is not stated but follows from
two thirds of four times the hidden size, times a factor, rounded up to a multiple.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import FormatError
from ...core.i18n import _
from .. import document

_TORCH = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """A LLaMA's dimensions; `feed_forward` and `vocabulary` are 0 where only the weights tell."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    epsilon: float
    theta: float
    feed_forward: int = 0
    vocabulary: int = 0
    grouped: bool = False

    @property
    def head_dim(self) -> int:
        """The width of one head."""
        return self.hidden // self.heads


def read(path: Path) -> Sizes:
    """Give what the params.json at `path` says. Raises FormatError when it does not describe a LLaMA."""
    values = document.read(path)
    for name in ("moe", "use_scaled_rope", "quantization_args", "lora_args"):
        if values.get(name):
            raise _unsupported(path, name)
    hidden, layers, heads = (_number(values, name, path) for name in ("dim", "n_layers", "n_heads"))
    kv_heads = _number({"n_kv_heads": values.get("n_kv_heads") or heads}, "n_kv_heads", path)
    epsilon, theta = _positive(values, "norm_eps", 1e-5, path), _positive(values, "rope_theta", 10000.0, path)
    return _fitting(Sizes(hidden, layers, heads, kv_heads, epsilon, theta, grouped="n_kv_heads" in values), path)


def write(path: Path, sizes: Sizes) -> None:
    """Write params.json, with the vocabulary that Meta left at −1 (llama.cpp and others stumble over that)."""
    multiple, factor = _feed_forward(sizes)
    values: dict[str, Any] = {"dim": sizes.hidden, "multiple_of": multiple}
    values |= {"ffn_dim_multiplier": factor} if factor else {}
    values |= {"n_heads": sizes.heads, "n_layers": sizes.layers}
    values |= {"n_kv_heads": sizes.kv_heads} if sizes.kv_heads != sizes.heads else {}
    values |= {"norm_eps": sizes.epsilon, "vocab_size": sizes.vocabulary}
    values |= {"rope_theta": sizes.theta} if sizes.theta != 10000.0 else {}
    path.write_text(json.dumps(values) + "\n")


def _feed_forward(sizes: Sizes) -> tuple[int, float | None]:
    """Give multiple_of and ffn_dim_multiplier from which Meta's code computes this feed-forward width."""
    plain = int(2 * 4 * sizes.hidden / 3)
    for multiple in (256, 1024, 4096, 128, 64, 32):
        for factor in (None, 1.3, 1.5):
            width = int(factor * plain) if factor else plain
            if -(-width // multiple) * multiple == sizes.feed_forward:
                return multiple, factor
    return sizes.feed_forward, (sizes.feed_forward + 0.5) / plain if sizes.feed_forward < plain else None


def from_config(path: Path) -> Sizes:
    """Give what the config.json at `path` says. Raises FormatError for what Meta's form cannot express."""
    values = document.read(path)
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    rope = rope if isinstance(rope, dict) else {"type": rope}
    if values.get("model_type") != "llama":
        raise _unsupported(path, f"model_type {values.get('model_type')}")
    for name in ("attention_bias", "mlp_bias", "quantization_config"):
        if values.get(name):
            raise _unsupported(path, name)
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise _unsupported(path, "rope_scaling")
    hidden, layers, heads = (
        _number(values, name, path) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")
    )
    kv_heads = _number({"num_key_value_heads": values.get("num_key_value_heads") or heads}, "num_key_value_heads", path)
    if values.get("head_dim") not in (None, hidden // heads):
        raise _unsupported(path, "head_dim")
    epsilon = _positive(values, "rms_norm_eps", 1e-6, path)
    theta = _positive({**values, **rope}, "rope_theta", 10000.0, path)
    return _fitting(Sizes(hidden, layers, heads, kv_heads, epsilon, theta), path)


def context(sizes: Sizes) -> int:
    """Give the context length in tokens of Meta's release that has these sizes: Code Llama, Llama 2, else LLaMA."""
    if sizes.theta >= 1e6:
        return 16384
    first = sizes.epsilon < 1e-5 or (sizes.hidden == 8192 and not sizes.grouped)
    return 2048 if first else 4096


def write_config(folder: Path, sizes: Sizes, dtype: str, ids: Mapping[str, int], context: int) -> None:
    """Write config.json, generation_config.json, tokenizer_config.json and special_tokens_map.json into `folder`."""
    special = {"bos_token_id": ids.get("bos", 1), "eos_token_id": ids.get("eos", 2)}
    words = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        **special,
        "hidden_act": "silu",
        "hidden_size": sizes.hidden,
        "initializer_range": 0.02,
        "intermediate_size": sizes.feed_forward,
        "max_position_embeddings": context,
        "model_type": "llama",
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.kv_heads,
        "rms_norm_eps": sizes.epsilon,
        "rope_theta": sizes.theta,
        "tie_word_embeddings": False,
        "torch_dtype": _TORCH[dtype],
        "use_cache": True,
        "vocab_size": sizes.vocabulary,
    }
    tokenizer = {
        "add_bos_token": True,
        "add_eos_token": False,
        **words,
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": context,
        "tokenizer_class": "LlamaTokenizer",
    }
    files = {
        "config.json": config,
        "generation_config.json": {"_from_model_config": True, **special},
        "tokenizer_config.json": tokenizer,
        "special_tokens_map.json": words,
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n")


def _number(values: Mapping[str, Any], name: str, path: Path) -> int:
    value = values.get(name)
    if type(value) is not int or not 0 < value <= 1 << 16:
        raise _invalid(path, name)
    return value


def _positive(values: Mapping[str, Any], name: str, default: float, path: Path) -> float:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
        raise _invalid(path, name)
    return float(value)


def _fitting(sizes: Sizes, path: Path) -> Sizes:
    fits = not sizes.hidden % sizes.heads and not sizes.heads % sizes.kv_heads and not sizes.head_dim % 2
    if not fits or sizes.layers > 512:
        raise FormatError(
            _("{path} has numbers of heads or layers that do not fit together.").format(path=path),
            _("Fetch it again."),
        )
    return sizes


def _invalid(path: Path, name: str) -> FormatError:
    return FormatError(_("{path} gives no valid {name}.").format(path=path, name=name), _("Fetch it again."))


def _unsupported(path: Path, name: str) -> FormatError:
    return FormatError(
        _("{path} describes what the other form cannot express: {name}.").format(path=path, name=name),
        _("Pull a GGUF build of this model, or run it with the transformers backend."),
    )
