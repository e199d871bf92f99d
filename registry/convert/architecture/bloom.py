"""BLOOM: ALiBi, a norm after the embedding, query, key and value interleaved head by head. Reference:
src/models/bloom.cpp of llama.cpp."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import layout
from ..layout import Fused, Place, count
from . import Design, both, refuse

if TYPE_CHECKING:
    import gguf


def design(config: Mapping[str, Any], path: Path) -> Design:
    """Give the design of a BLOOM. Raises FormatError."""
    refuse(config, path, {"apply_residual_connection_post_layernorm": (False, None)})
    hidden = count(config, path, "hidden_size", "n_embed")
    layers = count(config, path, "n_layer", "num_hidden_layers")
    heads = count(config, path, "n_head", "num_attention_heads")
    layout.check(path, hidden % heads == 0, layers)
    context = count(config, path, "seq_length", default=2048)
    epsilon = layout.number(config, "layer_norm_epsilon", 1e-5, path)

    def describe(out: "gguf.GGUFWriter") -> None:
        out.add_context_length(context)
        out.add_embedding_length(hidden)
        out.add_feed_forward_length(4 * hidden)
        out.add_block_count(layers)
        out.add_head_count(heads)
        out.add_head_count_kv(heads)
        out.add_layer_norm_eps(epsilon)

    places = _places(hidden, layers, Fused(heads, 1, hidden // heads))
    tied = bool(config.get("tie_word_embeddings", True))
    if not tied:
        places["lm_head.weight"] = Place("output.weight", (None, hidden))
    derived = ("lm_head.weight",) if tied else ()
    embedding = "transformer.word_embeddings.weight"
    return Design("bloom", places, describe, embedding, prefix="transformer.", derived=derived)


def _places(hidden: int, layers: int, fused: Fused) -> dict[str, Place]:
    places = {"transformer.word_embeddings.weight": Place("token_embd.weight", (None, hidden))}
    both(places, "transformer.word_embeddings_layernorm", "token_embd_norm", (hidden,))
    both(places, "transformer.ln_f", "output_norm", (hidden,))
    for n in range(layers):
        at, to = f"transformer.h.{n}", f"blk.{n}"
        both(places, f"{at}.input_layernorm", f"{to}.attn_norm", (hidden,))
        both(places, f"{at}.self_attention.query_key_value", f"{to}.attn_qkv", (3 * hidden, hidden), fused=fused)
        both(places, f"{at}.self_attention.dense", f"{to}.attn_output", (hidden, hidden))
        both(places, f"{at}.post_attention_layernorm", f"{to}.ffn_norm", (hidden,))
        both(places, f"{at}.mlp.dense_h_to_4h", f"{to}.ffn_up", (4 * hidden, hidden))
        both(places, f"{at}.mlp.dense_4h_to_h", f"{to}.ffn_down", (hidden, 4 * hidden))
    return places
