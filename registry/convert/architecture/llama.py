"""Llama 1, 2 and 3. Reference: src/models/llama.cpp of llama.cpp."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.i18n import _
from .. import layout
from . import Design, rope, unsupported

if TYPE_CHECKING:
    import gguf

_SCALINGS = ("linear", "yarn", "dynamic", "llama3")


def design(
    config: Mapping[str, Any], path: Path, scalings: tuple[str, ...] = _SCALINGS, notices: tuple[str, ...] = ()
) -> Design:
    """Give the design of a Llama, or of a model that differs from it in `scalings` of rope only. Raises FormatError."""
    sizes = layout.sizes(config, path)
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise unsupported(path, _("its activation is {name}").format(name=config["hidden_act"]))
    context = layout.count(config, path, "max_position_embeddings", default=2048)
    epsilon = layout.number(config, "rms_norm_eps", 1e-6, path)
    positions = rope.read(config, path, scalings)
    frequencies = positions.frequencies(sizes.head_dim)

    def describe(out: "gguf.GGUFWriter") -> None:
        out.add_context_length(context)
        out.add_embedding_length(sizes.hidden)
        out.add_block_count(sizes.layers)
        out.add_feed_forward_length(sizes.feed_forward)
        out.add_head_count(sizes.heads)
        out.add_head_count_kv(sizes.kv_heads)
        out.add_key_length(sizes.head_dim)
        out.add_value_length(sizes.head_dim)
        out.add_layer_norm_rms_eps(epsilon)
        out.add_rope_dimension_count(sizes.head_dim)
        positions.describe(out)

    return Design(
        sizes.architecture,
        _places(sizes, config),
        describe,
        "model.embed_tokens.weight",
        sizes.head_dim,
        derived=("rotary_emb.inv_freq", *(["lm_head.weight"] if sizes.tied else [])),
        extras=None if frequencies is None else {"rope_freqs.weight": frequencies},
        notices=(*notices, *positions.notices(context)),
    )


def _places(sizes: layout.Sizes, config: Mapping[str, Any]) -> dict[str, layout.Place]:
    """Give the weights, biases among them: those that the config names must be there, others may."""
    named = [part for part, name in ((".self_attn.", "attention_bias"), (".mlp.", "mlp_bias")) if config.get(name)]
    return {
        name: replace(place, optional=place.optional and not any(part in name for part in named))
        for name, place in layout.weights(sizes, bias=True).items()
    }


def window(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the notice for a model that looks back over a part of the text only, which llama.cpp does not know."""
    tokens, context = config.get("sliding_window"), config.get("max_position_embeddings")
    if type(tokens) is not int or type(context) is not int or tokens >= context:
        return ()
    text = _("Beyond {tokens} tokens llama.cpp looks back over the whole text; the model does not.")
    return (text.format(tokens=tokens),)
