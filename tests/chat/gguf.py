"""Copies of a GGUF file with another chat template."""

from pathlib import Path
from typing import Any

from ..tiny import rewrite_gguf

KEY = "tokenizer.chat_template"


def with_template(source: Path, target: Path, template: str, eos: int | None = None) -> Path:
    """Copy `source`, which has a template, to `target` with `template`, and perhaps with another EOS."""

    def change(key: str, value: Any) -> Any:
        if key == KEY:
            return template
        return eos if eos is not None and key.endswith("eos_token_id") else value

    return rewrite_gguf(source, target, change)
