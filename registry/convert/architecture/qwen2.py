"""Qwen2: biases of query, key and value, and a rope that pairs the halves of a head. Reference: src/models/qwen2.cpp
of llama.cpp."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import layout
from . import Design, llama

_BIASED = ("q_proj.bias", "k_proj.bias", "v_proj.bias")


def design(config: Mapping[str, Any], path: Path) -> Design:
    """Give the design of a Qwen2. Raises FormatError."""
    notices = llama.window(config) if config.get("use_sliding_window") else ()
    found = llama.design(config, path, ("linear", "yarn", "dynamic"), notices)
    sizes = layout.sizes(config, path)
    layout.check(path, sizes.heads * sizes.head_dim == sizes.hidden, sizes.layers)
    places = {
        name: replace(place, optional=False)
        for name, place in found.places.items()
        if not name.endswith(".bias") or name.endswith(_BIASED)
    }
    return replace(found, places=places)
