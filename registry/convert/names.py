"""Every weight of a LLaMA by its three names: Meta's (which ggml kept), Hugging Face's and GGUF's."""

from dataclasses import dataclass

from .params import Sizes

_LAYER = {
    "attention.wq": ("self_attn.q_proj", "attn_q", 0), "attention.wk": ("self_attn.k_proj", "attn_k", 0),
    "attention.wv": ("self_attn.v_proj", "attn_v", 0), "attention.wo": ("self_attn.o_proj", "attn_output", 1),
    "feed_forward.w1": ("mlp.gate_proj", "ffn_gate", 0), "feed_forward.w2": ("mlp.down_proj", "ffn_down", 1),
    "feed_forward.w3": ("mlp.up_proj", "ffn_up", 0), "attention_norm": ("input_layernorm", "attn_norm", None),
    "ffn_norm": ("post_attention_layernorm", "ffn_norm", None),
}  # fmt: skip
"""Name in a layer → the two others, and the axis along which several files share it; None for all of it in each."""


@dataclass(frozen=True, slots=True)
class Place:
    """One weight by its names, its row-major shape, the axis that files share, and whether rope turns its rows."""

    meta: str
    hf: str
    gguf: str
    shape: tuple[int, ...]
    axis: int | None
    turned: bool = False


EMBEDDING = Place("tok_embeddings.weight", "model.embed_tokens.weight", "token_embd.weight", (), 1)
GATE = Place("layers.0.feed_forward.w1.weight", "model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight", (), 0)
"""The two whose rows tell the vocabulary and the feed-forward width; any shape will do for them."""


def places(sizes: Sizes, embedding_axis: int = 1) -> list[Place]:
    """Give every weight of a LLaMA of these sizes."""
    hidden, inner, rows = sizes.hidden, sizes.feed_forward, sizes.vocabulary
    kv = sizes.kv_heads * sizes.head_dim
    shapes = {"attention.wk": (kv, hidden), "attention.wv": (kv, hidden), "feed_forward.w1": (inner, hidden),
              "feed_forward.w2": (hidden, inner), "feed_forward.w3": (inner, hidden)}  # fmt: skip
    found = [
        Place(EMBEDDING.meta, EMBEDDING.hf, EMBEDDING.gguf, (rows, hidden), embedding_axis),
        Place("norm.weight", "model.norm.weight", "output_norm.weight", (hidden,), None),
        Place("output.weight", "lm_head.weight", "output.weight", (rows, hidden), 0),
    ]
    for n in range(sizes.layers):
        for meta, (hf, gguf, axis) in _LAYER.items():
            shape = (hidden,) if axis is None else shapes.get(meta, (hidden, hidden))
            names = (f"layers.{n}.{meta}.weight", f"model.layers.{n}.{hf}.weight", f"blk.{n}.{gguf}.weight")
            found.append(Place(*names, shape, axis, meta in ("attention.wq", "attention.wk")))
    return found
