"""What a merged folder holds beside its weights: the base's settings and tokenizer, or the adapter's tokenizer."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.i18n import _
from .. import document
from .base import title

_SUFFIXES = (".json", ".model", ".txt", ".jinja", ".tiktoken", ".py")
_STALE = ("quantize_config.json", "quant_config.json", "adapter_config.json", "trainer_state.json")
_FOLDERS = ("additional_chat_templates",)
_LICENCES = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY", "COPYING")
_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip
_DERIVED = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
"""Files of the base that contradict the adapter's tokenizer when it does not bring its own."""


def choose(base: Path, tokenizer: Path | None) -> dict[str, Path]:
    """Give name → file of what is copied; `tokenizer` is the folder of the adapter whose tokenizer replaces the base's,
    if it has one."""
    found = {path.name: path for path in sorted(base.iterdir()) if _belongs(path)}
    for folder in _FOLDERS:
        found |= {f"{folder}/{path.name}": path for path in sorted((base / folder).glob("*.jinja"))}
    if tokenizer and (tokenizer / "tokenizer_config.json").is_file():
        found = {name: path for name, path in found.items() if name not in _DERIVED}
        found |= {name: tokenizer / name for name in _TOKENIZER if (tokenizer / name).is_file()}
    return found


def _belongs(path: Path) -> bool:
    name = path.name
    if not path.is_file() or name.startswith(".") or name in _STALE or name.endswith(".index.json"):
        return False
    return path.suffix in _SUFFIXES or path.stem.upper().startswith(_LICENCES)


def copy(files: Mapping[str, Path], target: Path, vocabulary: int | None) -> None:
    """Copy the files into the folder `target`; config.json says the new number of tokens, if it is another."""
    for name, path in files.items():
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target / name)
    if vocabulary is not None:
        config = target / "config.json"
        changed = document.optional(config) | {"vocab_size": vocabulary}
        config.write_text(json.dumps(changed, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def notices(adapter: Path, rows: int | None, taken: bool, grown: bool) -> list[str]:
    """Say where the adapter's own tokenizer does not go with the merged model, which has `rows` tokens.

    `taken` tells that it replaces the base's, `grown` that the vocabulary is another size than the base's.
    """
    tokens, found = _tokens(adapter), []
    if taken and grown and not (adapter / "tokenizer_config.json").is_file():
        found.append(
            _("{adapter} changes the number of tokens, and brings no tokenizer: add the tokens yourself.").format(
                adapter=title(adapter)
            )
        )
    if not taken and tokens is not None and rows is not None and tokens > rows:
        found.append(
            _("The tokenizer of {adapter} has {tokens} tokens, the merged model {rows}: it keeps the base's.").format(
                adapter=title(adapter), tokens=tokens, rows=rows
            )
        )
    return found


def _tokens(folder: Path) -> int | None:
    """Give the number of tokens that the tokenizer in `folder` says it has, as far as added tokens tell."""
    settings = document.optional(folder / "tokenizer_config.json").get("added_tokens_decoder")
    added: dict[str, Any] = document.optional(folder / "added_tokens.json")
    ids = [int(id) for id in settings if id.isdecimal()] if isinstance(settings, dict) else []
    ids += [id for id in added.values() if type(id) is int]
    return max(ids) + 1 if ids else None
