"""Whether a model's files agree on the token that ends an answer.

The checkpoints of decapoda-research (2023) said eos 1 in config.json where the tokenizer has 2, so that models trained
on them never stopped. What is found becomes a notice and an override in the record; the files stay as they are.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.i18n import _
from . import header

_HEAD = 1 << 20
"""Bytes of tokenizer.json and tokenizer.model that are read: the special tokens stand first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Sentences for people, and the ids that must end an answer although config.json does not say so."""

    notices: tuple[str, ...] = ()
    stop: tuple[int, ...] = ()


def folder(path: Path, config: Mapping[str, Any], read: Any) -> Finding:
    """Give what is wrong in the Hugging Face folder `path`; `read` gives the object in one of its JSON files."""
    settings, generation = read("tokenizer_config.json"), read("generation_config.json")
    notices = [_misspelt()] if settings.get("tokenizer_class") == "LLaMATokenizer" else []
    ids = {name: _tokenizer_id(path, settings, f"{name}_token") for name in ("bos", "eos")}
    declared = {name: _ids(config.get(f"{name}_token_id")) for name in ("bos", "eos")}
    later = _ids(generation.get("eos_token_id"))
    if ids["bos"] is not None and declared["bos"] and ids["bos"] not in declared["bos"]:
        notices.append(_sentence("bos", "config.json", declared["bos"], ids["bos"]))
    stop = _end(declared["eos"], later, ids["eos"], notices)
    return Finding(tuple(notices), stop)


def _end(config: set[int], later: set[int], own: int | None, notices: list[str]) -> tuple[int, ...]:
    """Compare the ids that end an answer: those of config.json, of generation_config.json, the tokenizer's own."""
    if own is None:
        if config and later and not config & later:
            sentence = _(
                "config.json ends an answer at token {one}, generation_config.json at {other}: both will end it."
            )
            notices.append(sentence.format(one=_listed(config), other=_listed(later)))
            return tuple(sorted(config | later))
        return ()
    wrong = [("config.json", config)] if config and own not in config and not config <= later else []
    wrong += [("generation_config.json", later)] if later and own not in later else []
    notices += [_sentence("eos", file, ids, own) for file, ids in wrong]
    return (own,) if wrong else ()


def gguf(head: header.Header) -> Finding:
    """Give what is wrong in a GGUF header: an eos that is no token, or that is `<s>` where there is `</s>`."""
    eos, array = head.number("tokenizer.ggml.eos_token_id"), head.metadata.get("tokenizer.ggml.tokens")
    if eos is None or not isinstance(array, header.Array) or array.kind != header.STRING:
        return Finding()
    if eos >= array.count:
        text = _("The file ends an answer at token {id}, but has only {count} tokens.")
        return Finding((text.format(id=eos, count=array.count),))
    first = [token for token, _index in zip(header.tokens(head), range(16), strict=False)]
    own = first.index(b"</s>") if b"</s>" in first else None
    if own is None or eos == own or eos >= len(first) or first[int(eos)] != b"<s>":
        return Finding()
    return Finding((_sentence("eos", head.path.name, {int(eos)}, own),), (own,))


def _sentence(what: str, file: str, ids: Iterable[int], own: int) -> str:
    text = {
        "eos": _("{file} ends an answer at token {ids}, the tokenizer at {own}: vigtui stops at {own} too."),
        "bos": _("{file} begins a text with token {ids}, the tokenizer with {own}: vigtui follows the tokenizer."),
    }[what]
    return text.format(file=file, ids=_listed(ids), own=own)


def _misspelt() -> str:
    return _("tokenizer_config.json names LLaMATokenizer, the spelling of March 2023; it is read as LlamaTokenizer.")


def _listed(ids: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(ids)))


def _ids(value: Any) -> set[int]:
    values = value if isinstance(value, list) else [value]
    return {one for one in values[:64] if type(one) is int and 0 <= one < 1 << 24}


def _tokenizer_id(path: Path, settings: Mapping[str, Any], name: str) -> int | None:
    """Give the id of the tokenizer's bos or eos, from its text; Llama's own where the settings leave it empty."""
    value = settings.get(name)
    text = value.get("content") if isinstance(value, dict) else value
    text = text if isinstance(text, str) else ""
    known = {**_pieces(path / "tokenizer.model"), **_added(path / "tokenizer.json"), **_decoder(settings)}
    default = {"bos_token": "<s>", "eos_token": "</s>"}[name] if (path / "tokenizer.model").is_file() else ""
    return known.get(text or default)


def _decoder(settings: Mapping[str, Any]) -> dict[str, int]:
    decoder = settings.get("added_tokens_decoder")
    entries = decoder.items() if isinstance(decoder, dict) else ()
    return {str(e.get("content")): int(id) for id, e in entries if isinstance(e, dict) and re.fullmatch(r"\d{1,8}", id)}


def _added(path: Path) -> dict[str, int]:
    """Give text → id of `added_tokens`, which stands near the beginning of tokenizer.json."""
    match = re.search(
        r'"added_tokens"\s*:\s*\[(.*?)\]\s*,\s*"normalizer"', _head(path).decode("utf-8", "replace"), re.S
    )
    try:
        entries = json.loads(f"[{match[1]}]") if match and match[1].count("{") < 5000 else []
        return {str(entry["content"]): int(entry["id"]) for entry in entries}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _pieces(path: Path) -> dict[str, int]:
    """Give text → id of the first pieces of a SentencePiece model (field 1 of its protocol buffer)."""
    data, at, found = _head(path), 0, {}
    while len(found) < 300 and at + 2 < len(data) and data[at] == 0x0A and data[at + 1] < 128:
        entry = data[at + 2 : at + 2 + data[at + 1]]
        if entry[:1] == b"\x0a":
            found.setdefault(entry[2 : 2 + entry[1]].decode("utf-8", "replace"), len(found))
        at += 2 + data[at + 1]
    return found


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""
