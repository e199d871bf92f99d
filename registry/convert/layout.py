"""Where each weight of a Llama, Mistral or Qwen2 goes in GGUF, and the sizes that decide its shape."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import FormatError
from ...core.i18n import _
from ..header import Header

if TYPE_CHECKING:
    import numpy as np

ARCHITECTURES = {
    "LlamaForCausalLM": "llama", "LLaMAForCausalLM": "llama", "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
}  # fmt: skip
"""Hugging Face's class → general.architecture. The second is the spelling of checkpoints of March 2023."""
_KINDS = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """A model's dimensions; `head_dim` is the width of one head, `kv_heads` < `heads` is grouped-query attention.

    `architecture` is the name in GGUF: "llama" or "qwen2".
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    tied: bool = False
    architecture: str = "llama"


@dataclass(frozen=True, slots=True)
class Fused:
    """Rows of a weight that makes query, key and value at once: `groups` times `queries` query heads, a key head and
    a value head, each `width` rows."""

    groups: int
    queries: int
    width: int

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yield (first row, rows) in the order of GGUF: all queries, all keys, all values."""
        step = (self.queries + 2) * self.width
        for start, count in (
            (0, self.queries * self.width),
            (self.queries * self.width, self.width),
            ((self.queries + 1) * self.width, self.width),
        ):
            yield from ((group * step + start, count) for group in range(self.groups))


@dataclass(frozen=True, slots=True)
class Place:
    """A weight's name in GGUF and its row-major shape, None for the vocabulary; `heads` > 0 asks for `permute`.

    `fused` reorders rows; `optional` weights may be missing, from all layers at once.
    """

    name: str
    shape: tuple[int | None, ...]
    heads: int = 0
    fused: Fused | None = None
    optional: bool = False


def sizes(config: Mapping[str, Any], path: Path) -> Sizes:
    """Read the sizes from the config.json at `path`. Raises FormatError when it is no Llama or does not add up."""
    kind, classes = str(config.get("model_type") or "?"), config.get("architectures")
    architecture = str(classes[0]) if isinstance(classes, list) and classes else _KINDS.get(kind, kind)
    if architecture not in ARCHITECTURES:
        raise FormatError(
            _("{path} describes a {architecture}; this needs a Llama, a Mistral or a Qwen2.").format(
                path=path, architecture=architecture
            ),
            _("Pull a GGUF build of this model, or run it with the transformers backend."),
        )
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    hidden, layers, heads, feed_forward = (count(config, path, name) for name in names)
    kv_heads = count(config, path, "num_key_value_heads", default=heads)
    head_dim = count(config, path, "head_dim", default=hidden // heads)
    check(path, heads % kv_heads == 0 and head_dim % 2 == 0, layers)
    tied = bool(config.get("tie_word_embeddings"))
    return Sizes(hidden, layers, heads, kv_heads, head_dim, feed_forward, tied, ARCHITECTURES[architecture])


def check(path: Path, whole: bool, layers: int) -> None:
    """Raise FormatError unless the numbers of heads fit (`whole`); llama.cpp dies of more than 512 `layers`."""
    if not whole or layers > 512:
        raise FormatError(
            _("{path} has numbers of heads or layers that do not fit together.").format(path=path),
            _("Fetch it again."),
        )


def number(config: Mapping[str, Any], name: str, default: float, path: Path) -> float:
    """Give the number under `name`. Raises FormatError when it is something else, not above zero, or no float32."""
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e-30 < value < 1e30:
        raise FormatError(_("{path} gives no valid {name}.").format(path=path, name=name), _("Fetch it again."))
    return float(value)


def count(config: Mapping[str, Any], path: Path, *names: str, default: int | None = None) -> int:
    """Give the whole number above 0 under the first of `names` that is there. Raises FormatError."""
    value = next((config[name] for name in names if config.get(name)), config.get(names[0]))
    value = value or default if value is None or value == 0 else value
    if type(value) is not int or not 0 < value < 2**31:
        raise FormatError(_("{path} gives no valid {name}.").format(path=path, name=names[0]), _("Fetch it again."))
    return value


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


def weights(sizes: Sizes, bias: bool = False) -> dict[str, Place]:
    """Give every weight that a model of these sizes has, by its Hugging Face name; `bias` the optional ones too."""
    hidden, inner = sizes.hidden, sizes.feed_forward
    q, kv = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    turned = sizes.architecture == "llama"  # qwen2's rope takes halves, as Hugging Face does
    places = {
        "model.embed_tokens.weight": Place("token_embd.weight", (None, hidden)),
        "model.norm.weight": Place("output_norm.weight", (hidden,)),
    }
    if not sizes.tied:
        places["lm_head.weight"] = Place("output.weight", (None, hidden))
    layer = {
        "self_attn.q_proj": ("attn_q", (q, hidden), sizes.heads * turned),
        "self_attn.k_proj": ("attn_k", (kv, hidden), sizes.kv_heads * turned),
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
            if bias and len(shape) == 2:
                place = Place(f"blk.{n}.{target}.bias", shape[:1], heads, optional=True)
                places[f"model.layers.{n}.{source}.bias"] = place
    return places


def permute(rows: "np.ndarray", head_dim: int) -> "np.ndarray":
    """Reorder the rows of whole heads from Hugging Face's halves to the neighbouring pairs of llama.cpp's rope.

    `rows` is (heads * head_dim, …); see `LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py.
    """
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)
