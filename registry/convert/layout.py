"""Where each weight of a Hugging Face Llama goes in GGUF, and the sizes that decide its shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import FormatError
from ...core.i18n import _
from ..header import Header

if TYPE_CHECKING:
    import numpy as np

ARCHITECTURES = ("LlamaForCausalLM", "LLaMAForCausalLM")
"""The second is the spelling of checkpoints of March 2023."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """A Llama's dimensions; `head_dim` is the width of one head, `kv_heads` < `heads` is grouped-query attention."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    tied: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A weight's name in GGUF and its row-major shape, None for the vocabulary; `heads` > 0 asks for `permute`."""

    name: str
    shape: tuple[int | None, ...]
    heads: int = 0


def sizes(config: Mapping[str, Any], path: Path) -> Sizes:
    """Read the sizes from the config.json at `path`. Raises FormatError when it is no Llama or does not add up."""
    kind = config.get("model_type") or "?"
    architecture = (config.get("architectures") or ["LlamaForCausalLM" if kind == "llama" else kind])[0]
    if architecture not in ARCHITECTURES:
        raise FormatError(
            _("{path} describes a {architecture}; only LlamaForCausalLM can be converted.").format(
                path=path, architecture=architecture
            ),
            _("Pull a GGUF build of this model, or run it with the transformers backend."),
        )
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    hidden, layers, heads, feed_forward = (_count(config.get(name), name, path) for name in names)
    kv_heads = _count(config.get("num_key_value_heads") or heads, "num_key_value_heads", path)
    head_dim = _count(config.get("head_dim") or hidden // heads, "head_dim", path)
    if heads % kv_heads or head_dim % 2 or layers > 512:
        raise FormatError(
            _("{path} has numbers of heads or layers that do not fit together.").format(path=path),
            _("Fetch it again."),
        )
    return Sizes(hidden, layers, heads, kv_heads, head_dim, feed_forward, bool(config.get("tie_word_embeddings")))


def number(config: Mapping[str, Any], name: str, default: float, path: Path) -> float:
    """Give the number under `name`. Raises FormatError when it is something else, zero, negative or not finite."""
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise FormatError(_("{path} gives no valid {name}.").format(path=path, name=name), _("Fetch it again."))
    return float(value)


def from_gguf(header: Header) -> Sizes:
    """Read the sizes from a GGUF header. Raises FormatError when it is no Llama."""
    config = {
        "model_type": header.architecture,
        "hidden_size": header.number("ARCH.embedding_length"),
        "num_hidden_layers": header.number("ARCH.block_count"),
        "num_attention_heads": header.number("ARCH.attention.head_count"),
        "num_key_value_heads": header.number("ARCH.attention.head_count_kv"),
        "head_dim": header.number("ARCH.attention.key_length"),
        "intermediate_size": header.number("ARCH.feed_forward_length"),
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in header.tensors),
    }
    return sizes(config, header.path)


def _count(value: Any, name: str, path: Path) -> int:
    if type(value) is not int or not 0 < value < 2**31:
        raise FormatError(_("{path} gives no valid {name}.").format(path=path, name=name), _("Fetch it again."))
    return value


def weights(sizes: Sizes, bias: bool = False) -> dict[str, Place]:
    """Give every weight that a model of these sizes has, by its Hugging Face name; `bias` those of the attention."""
    hidden, inner = sizes.hidden, sizes.feed_forward
    q, kv = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    places = {
        "model.embed_tokens.weight": Place("token_embd.weight", (None, hidden)),
        "model.norm.weight": Place("output_norm.weight", (hidden,)),
    }
    if not sizes.tied:
        places["lm_head.weight"] = Place("output.weight", (None, hidden))
    layer = {
        "self_attn.q_proj": ("attn_q", (q, hidden), sizes.heads),
        "self_attn.k_proj": ("attn_k", (kv, hidden), sizes.kv_heads),
        "self_attn.v_proj": ("attn_v", (kv, hidden), 0),
        "self_attn.o_proj": ("attn_output", (hidden, q), 0),
        "mlp.gate_proj": ("ffn_gate", (inner, hidden), 0),
        "mlp.up_proj": ("ffn_up", (inner, hidden), 0),
        "mlp.down_proj": ("ffn_down", (hidden, inner), 0),
        "input_layernorm": ("attn_norm", (hidden,), 0),
        "post_attention_layernorm": ("ffn_norm", (hidden,), 0),
    }
    for n in range(sizes.layers):
        for source, (target, shape, heads) in layer.items():
            places[f"model.layers.{n}.{source}.weight"] = Place(f"blk.{n}.{target}.weight", shape, heads)
            if bias and target.startswith("attn_") and len(shape) == 2:
                places[f"model.layers.{n}.{source}.bias"] = Place(f"blk.{n}.{target}.bias", shape[:1], heads)
    return places


def permute(rows: "np.ndarray", head_dim: int) -> "np.ndarray":
    """Reorder the rows of whole heads from Hugging Face's halves to the neighbouring pairs of llama.cpp's rope.

    `rows` is (heads * head_dim, …); see `LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py.
    """
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)
