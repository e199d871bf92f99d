"""Mistral: a Llama whose first version looks back over a window of 4,096 tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import Design, llama


def design(config: Mapping[str, Any], path: Path) -> Design:
    """Give the design of a Mistral. Raises FormatError."""
    return llama.design(config, path, notices=llama.window(config))
