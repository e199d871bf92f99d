"""Falcon, 7B (multi-query, one norm) and 40B (grouped-query, two norms). Reference: src/models/falcon.cpp of llama.cpp.

The checkpoints of 2023 call themselves RefinedWebModel (7B) and RefinedWeb (40B).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import layout
from ..layout import Fused, Place, count
from . import Design, both, refuse, rope

if TYPE_CHECKING:
    import gguf

_ONLY = {"alibi": (False, None), "bias": (False, None), "activation": ("gelu",)}


def design(config: Mapping[str, Any], path: Path) -> Design:
    """Give the design of a Falcon. Raises FormatError."""
    refuse(config, path, _ONLY)
    grouped = bool(config.get("new_decoder_architecture", config.get("model_type") == "RefinedWeb"))
    refuse({} if grouped else config, path, {"parallel_attn": (True,)})
    hidden = count(config, path, "hidden_size", "n_embed")
    layers = count(config, path, "num_hidden_layers", "n_layer")
    heads = count(config, path, "num_attention_heads", "n_head")
    shared = config.get("multi_query", True) and not grouped
    kv_heads = 1 if shared else count(config, path, "num_kv_heads", "n_head_kv", default=heads)
    inner = count(config, path, "ffn_hidden_size", default=4 * hidden)
    layout.check(path, heads % kv_heads == 0 and hidden % (2 * heads) == 0, layers)
    epsilon = layout.number(config, "layer_norm_epsilon", 1e-5, path)
    context = count(config, path, "max_position_embeddings", default=2048)
    positions = rope.read(config, path)

    def describe(out: "gguf.GGUFWriter") -> None:
        out.add_context_length(context)
        out.add_tensor_data_layout("jploski")
        out.add_embedding_length(hidden)
        out.add_feed_forward_length(inner)
        out.add_block_count(layers)
        out.add_head_count(heads)
        out.add_head_count_kv(kv_heads)
        out.add_layer_norm_eps(epsilon)
        positions.describe(out)

    tied = bool(config.get("tie_word_embeddings", True))
    fused = Fused(kv_heads, heads // kv_heads, hidden // heads)
    norms = (config.get("num_ln_in_parallel_attn") or 2) if grouped else 1
    return Design(
        "falcon",
        _places(hidden, inner, layers, fused, norms == 2, tied),
        describe,
        "transformer.word_embeddings.weight",
        prefix="transformer.",
        derived=("rotary_emb.inv_freq", "self_attention.maybe_rotary.inv_freq", *(["lm_head.weight"] if tied else [])),
        notices=positions.notices(context),
    )


def _places(hidden: int, inner: int, layers: int, fused: Fused, two: bool, tied: bool) -> dict[str, Place]:
    rows = fused.groups * (fused.queries + 2) * fused.width
    places = {"transformer.word_embeddings.weight": Place("token_embd.weight", (None, hidden))}
    both(places, "transformer.ln_f", "output_norm", (hidden,))
    if not tied:
        places["lm_head.weight"] = Place("output.weight", (None, hidden))
    norms = {"ln_mlp": "attn_norm", "ln_attn": "attn_norm_2"} if two else {"input_layernorm": "attn_norm"}
    for n in range(layers):
        at, to = f"transformer.h.{n}", f"blk.{n}"
        for source, target in norms.items():
            both(places, f"{at}.{source}", f"{to}.{target}", (hidden,))
        places[f"{at}.self_attention.query_key_value.weight"] = Place(
            f"{to}.attn_qkv.weight", (rows, hidden), fused=fused
        )
        places[f"{at}.self_attention.dense.weight"] = Place(f"{to}.attn_output.weight", (hidden, hidden))
        places[f"{at}.mlp.dense_h_to_4h.weight"] = Place(f"{to}.ffn_up.weight", (inner, hidden))
        places[f"{at}.mlp.dense_4h_to_h.weight"] = Place(f"{to}.ffn_down.weight", (hidden, inner))
    return places
