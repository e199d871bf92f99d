"""The vocabulary of a Hugging Face folder with a SentencePiece model, as GGUF wants it.

tokenizer.model is a protocol buffer (sentencepiece_model.proto of google/sentencepiece); its few fields that matter
are read here, among them two that the sentencepiece package does not show: the model type and the normalizer.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.errors import FormatError
from ...core.i18n import _

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Token types, the same numbers in SentencePiece and in GGUF."""


@dataclass(slots=True)
class Vocabulary:
    """Tokens by id with their scores and types; `ids` holds bos, eos, unk and pad where the model has them."""

    tokens: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    add_bos: bool = True
    add_eos: bool = False
    add_space_prefix: bool = True
    chat_template: str | None = None
    notices: list[str] = field(default_factory=list)

    def append(self, token: str, score: float, kind: int) -> None:
        """Add the token of the next id."""
        self.tokens.append(token)
        self.scores.append(score)
        self.types.append(kind)


def read(folder: Path, rows: int, config: dict[str, Any]) -> Vocabulary:
    """Give the vocabulary of `folder` for an embedding of `rows` rows. Raises FormatError."""
    vocabulary = _pieces(folder / "tokenizer.model")
    if len(vocabulary.tokens) > rows:
        raise FormatError(
            _("{folder} has {tokens} tokens but only {rows} rows of embeddings.").format(
                folder=folder, tokens=len(vocabulary.tokens), rows=rows
            ),
            _("The tokenizer belongs to another model: fetch both again."),
        )
    settings = _json(folder / "tokenizer_config.json")
    added = _added(folder, settings)
    for id in range(len(vocabulary.tokens), rows):
        vocabulary.append(*added.get(id, (f"[PAD{id}]", -10000.0, UNUSED)))
    for id, (token, score, kind) in added.items():
        if id >= rows:
            vocabulary.notices.append(_("The added token {token} has no embedding.").format(token=token))
        elif vocabulary.tokens[id] != token or vocabulary.types[id] == NORMAL:
            vocabulary.tokens[id], vocabulary.scores[id], vocabulary.types[id] = token, score, kind
    _settle(vocabulary, folder, settings, config)
    _verify(vocabulary, folder)
    return vocabulary


def _pieces(path: Path) -> Vocabulary:
    vocabulary, trainer, normalizer = Vocabulary(), {}, {}
    if not path.is_file():
        raise FormatError(
            _("{folder} has no tokenizer.model (SentencePiece).").format(folder=path.parent),
            _("Only Llama models with that tokenizer can be converted: pull a GGUF build instead."),
        )
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                piece = dict(_fields(value))
                score = struct.unpack("<f", piece.get(2, b"\0\0\0\0"))[0]
                vocabulary.append(piece.get(1, b"").decode(), score, piece.get(3, NORMAL))
            elif number == 2:
                trainer = dict(_fields(value))
            elif number == 3:
                normalizer = dict(_fields(value))
    except (ValueError, IndexError, TypeError, AttributeError, struct.error) as error:
        raise FormatError(_("{path} is damaged.").format(path=path), _("Fetch it again.")) from error
    if trainer.get(3, 1) != 2:  # model_type: 1 Unigram, 2 BPE
        raise FormatError(
            _("{path} is not a BPE model, and llama.cpp reads only those for Llama.").format(path=path),
            _("Use another backend for this model."),
        )
    if normalizer.get(2) or normalizer.get(4, 1):  # precompiled_charsmap, remove_extra_whitespaces
        vocabulary.notices.append(_("The tokenizer changes the text before it cuts it; llama.cpp will not."))
    vocabulary.add_space_prefix = bool(normalizer.get(3, 1))
    for name, number, default in (("unk", 40, 0), ("bos", 41, 1), ("eos", 42, 2), ("pad", 43, 2**32 - 1)):
        id = trainer.get(number, default) % 2**32
        if id < len(vocabulary.tokens):
            vocabulary.ids[name] = id
    return vocabulary


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of each field of a protocol buffer message, numbers as int, the rest as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
        else:
            size, at = {1: (8, at), 5: (4, at)}.get(key & 7) or _varint(data, at)
            value, at = data[at : at + size], at + size
            if key & 7 not in (1, 2, 5) or at > len(data):
                raise ValueError("wire type or length")
        yield key >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("varint")


def _added(folder: Path, settings: dict[str, Any]) -> dict[int, tuple[str, float, int]]:
    """Give id → (text, score, type) of the tokens that were added after training."""
    added: dict[int, tuple[str, float, int]] = {}
    for token, id in _json(folder / "added_tokens.json").items():
        if isinstance(id, int):
            added[id] = (token.replace("\u2581", " "), -1000.0, USER_DEFINED)
    decoder = settings.get("added_tokens_decoder")
    for id, entry in decoder.items() if isinstance(decoder, dict) else ():
        if id.isdecimal() and isinstance(entry, dict) and isinstance(entry.get("content"), str):
            kind = CONTROL if entry.get("special") else USER_DEFINED
            text = entry["content"] if kind == CONTROL else entry["content"].replace("\u2581", " ")
            added[int(id)] = (text, -1000.0, kind)
    return added


def _settle(vocabulary: Vocabulary, folder: Path, settings: dict[str, Any], config: dict[str, Any]) -> None:
    for name in ("bos", "eos", "unk", "pad"):
        token, id = settings.get(f"{name}_token"), config.get(f"{name}_token_id")
        text = token.get("content") if isinstance(token, dict) else token
        if text and text in vocabulary.tokens:
            vocabulary.ids[name] = vocabulary.tokens.index(text)
        elif type(id) is int and 0 <= id < len(vocabulary.tokens):
            vocabulary.ids.setdefault(name, id)
    for id in (vocabulary.ids.get("bos"), vocabulary.ids.get("eos")):
        if id is not None and vocabulary.types[id] in (NORMAL, USER_DEFINED):
            vocabulary.types[id] = CONTROL
    if isinstance(settings.get("add_prefix_space"), bool):
        vocabulary.add_space_prefix = settings["add_prefix_space"]
    vocabulary.add_bos = settings.get("add_bos_token") is not False
    vocabulary.add_eos = settings.get("add_eos_token") is True
    vocabulary.chat_template = _template(folder, settings.get("chat_template"))


def _template(folder: Path, setting: Any) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    if isinstance(setting, list):
        named = {entry.get("name"): entry.get("template") for entry in setting if isinstance(entry, dict)}
        setting = named.get("default")
    return setting if isinstance(setting, str) else None


def _verify(vocabulary: Vocabulary, folder: Path) -> None:
    """Refuse what kills llama.cpp while it loads: two equal tokens, or one without text."""
    seen: set[str] = set()
    for id, token in enumerate(vocabulary.tokens):
        if not token or token in seen or "\0" in token:
            raise FormatError(
                _("Token {id} of {folder} is empty or occurs twice.").format(id=id, folder=folder),
                _("The tokenizer is damaged or was extended wrongly: fetch it again."),
            )
        seen.add(token)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return load_json(path)


def load_json(path: Path) -> dict[str, Any]:
    """Give the object in the JSON file `path`. Raises FormatError."""
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(_("{path} is damaged.").format(path=path), _("Fetch it again.")) from error
    return value
