"""MPT: ALiBi instead of rotary positions, one fused projection, no biases. Reference: src/models/mpt.cpp of llama.cpp.

transformers reads neither `alibi_bias_max` nor `alibi`; this and llama.cpp follow the authors' own code, which does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import layout
from ..layout import Place, count
from . import Design, refuse

if TYPE_CHECKING:
    import gguf

_ONLY = {"logit_scale": (None,), "embedding_fraction": (1, 1.0), "no_bias": (True, None)}
_ATTENTION = {
    "attn_type": ("multihead_attention",), "softmax_scale": (None,), "qk_ln": (False, None), "qk_gn": (False, None),
    "prefix_lm": (False, None), "attn_uses_sequence_id": (False, None), "alibi": (True,), "rope": (False, None),
    "sliding_window_size": (-1, None),
}  # fmt: skip


def design(config: Mapping[str, Any], path: Path) -> Design:
    """Give the design of an MPT. Raises FormatError."""
    found = config.get("attn_config")
    attention = found if isinstance(found, dict) else {}
    refuse(config, path, _ONLY)
    refuse(attention, path, _ATTENTION)
    hidden = count(config, path, "d_model", "hidden_size")
    layers = count(config, path, "n_layers", "num_hidden_layers")
    heads = count(config, path, "n_heads", "num_attention_heads")
    inner = count(config, path, "expansion_ratio", default=4) * hidden
    layout.check(path, hidden % heads == 0, layers)
    context = count(config, path, "max_seq_len", default=2048)
    epsilon = layout.number(config, "layer_norm_epsilon", 1e-5, path)
    slope = layout.number(attention, "alibi_bias_max", 8, path)
    clip = None if attention.get("clip_qkv") is None else layout.number(attention, "clip_qkv", 1.0, path)

    def describe(out: "gguf.GGUFWriter") -> None:
        out.add_context_length(context)
        out.add_embedding_length(hidden)
        out.add_block_count(layers)
        out.add_feed_forward_length(inner)
        out.add_head_count(heads)
        out.add_head_count_kv(heads)
        out.add_layer_norm_eps(epsilon)
        out.add_max_alibi_bias(slope)
        if clip is not None:
            out.add_clamp_kqv(clip)

    places = _places(hidden, inner, layers)
    tied = bool(config.get("tie_word_embeddings", True))
    if not tied:
        places["lm_head.weight"] = Place("output.weight", (None, hidden))
    derived = ("lm_head.weight",) if tied else ()
    return Design("mpt", places, describe, "transformer.wte.weight", prefix="transformer.", derived=derived)


def _places(hidden: int, inner: int, layers: int) -> dict[str, Place]:
    places = {
        "transformer.wte.weight": Place("token_embd.weight", (None, hidden)),
        "transformer.norm_f.weight": Place("output_norm.weight", (hidden,)),
    }
    layer = {
        "norm_1": ("attn_norm", (hidden,)),
        "attn.Wqkv": ("attn_qkv", (3 * hidden, hidden)),
        "attn.out_proj": ("attn_output", (hidden, hidden)),
        "norm_2": ("ffn_norm", (hidden,)),
        "ffn.up_proj": ("ffn_up", (inner, hidden)),
        "ffn.down_proj": ("ffn_down", (hidden, inner)),
    }
    for n in range(layers):
        for source, (target, shape) in layer.items():
            places[f"transformer.blocks.{n}.{source}.weight"] = Place(f"blk.{n}.{target}.weight", shape)
    return places
