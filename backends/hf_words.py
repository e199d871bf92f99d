"""The two libraries behind the tokenizers of Hugging Face folders.

tokenizer.model is read by SentencePiece itself, since transformers 5 rewrites Llama tokenizers so that white space
at the start of a text comes out differently from what SentencePiece, llama.cpp and the model's authors had.
tokenizer.json is read by the tokenizers library as it stands, for the same reason.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import FormatError
from ..core.i18n import _

_USER = 4
_SPECIAL = (2, 3, _USER)
"""Types of a piece in SentencePiece: unknown, control, user-defined."""
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_JOINER = "\U0010fff0"
"""A private-use character, made a special token: it stands for the special token before a text."""


class Words(ABC):
    """The part of a tokenizer that knows no special tokens."""

    @abstractmethod
    def encode(self, text: str, inner: bool) -> list[int]:
        """Give the ids of `text`, which follows a special token when `inner`."""

    @abstractmethod
    def token(self, id: int) -> str:
        """Give the token as the vocabulary spells it, "" for none."""

    @abstractmethod
    def id(self, token: str) -> int:
        """Give the id of a token, −1 for none."""

    @abstractmethod
    def piece(self, id: int) -> bytes:
        """Give the bytes that the token adds to a text."""


class SentencePieces(Words):
    """tokenizer.model, read by SentencePiece."""

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor  # 30 ms, and a model without tokenizer.model needs none

        try:
            self.processor = SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise FormatError(_("{path} is no SentencePiece model.").format(path=path), _("Fetch it again.")) from error
        self.size: int = self.processor.get_piece_size()

    def encode(self, text: str, inner: bool) -> list[int]:
        return self.processor.encode(text.encode("utf-8", "replace").decode())

    def token(self, id: int) -> str:
        return self.processor.id_to_piece(id) if 0 <= id < self.size else ""

    def id(self, token: str) -> int:
        found = self.processor.piece_to_id(token)
        return found if self.token(found) == token else -1

    def piece(self, id: int) -> bytes:
        if not 0 <= id < self.size or self.processor.is_control(id) or self.processor.is_unknown(id):
            return b""
        return _unmarked(self.token(id))

    def specials(self) -> dict[int, dict[str, Any]]:
        """Give id → {content, special} of the control, unknown and user-defined tokens; the last are shown as text."""
        found = enumerate(_kinds(self.processor.serialized_model_proto()))
        return {id: {"content": self.token(id), "special": kind != _USER} for id, kind in found if kind in _SPECIAL}


class Json(Words):
    """tokenizer.json, read by the tokenizers library, without its special tokens."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        from tokenizers import AddedToken, Tokenizer  # 20 ms, likewise

        try:
            added = [one for one in values.get("added_tokens") or () if not one["content"].strip()]
            self.whole = Tokenizer.from_str(json.dumps(values))
            self._plain = Tokenizer.from_str(json.dumps({**values, "added_tokens": added}))
        except Exception as error:  # the library raises plain Exception
            raise FormatError(
                _("The tokenizer cannot be read: {reason}.").format(reason=str(error)[:200]),
                _("Fetch tokenizer.json again."),
            ) from error
        for tokenizer in (self.whole, self._plain):
            tokenizer.no_padding()
            tokenizer.no_truncation()
        self._plain.add_special_tokens([AddedToken(_JOINER, normalized=False)])
        self.size: int = self.whole.get_vocab_size()
        kinds = f"{values.get('decoder')} {values.get('pre_tokenizer')}"
        self._bytes = _byte_alphabet() if "ByteLevel" in kinds else None
        self._literal = {one["id"] for one in values.get("added_tokens") or ()}

    def encode(self, text: str, inner: bool) -> list[int]:
        clean = text.encode("utf-8", "replace").decode().replace(_JOINER, "")
        ids = self._plain.encode((_JOINER if inner else "") + clean, add_special_tokens=False).ids
        return ids[1:] if inner else ids

    def token(self, id: int) -> str:
        return self.whole.id_to_token(id) or ""

    def id(self, token: str) -> int:
        found = self.whole.token_to_id(token)
        return -1 if found is None else found

    def piece(self, id: int) -> bytes:
        text = self.token(id)
        if id in self._literal:
            return text.encode()
        if self._bytes is None:
            return _unmarked(text)
        return bytes(self._bytes[c] for c in text if c in self._bytes)


def _unmarked(text: str) -> bytes:
    """Give the bytes of a SentencePiece token: <0xNN> is one byte, ▁ a space."""
    byte = _BYTE.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """Give character → byte of byte-level BPE (bytes_to_unicode in OpenAI's gpt-2/src/encoder.py)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {**{chr(byte): byte for byte in shown}, **{chr(256 + i): byte for i, byte in enumerate(hidden)}}


def _kinds(model: bytes) -> Iterator[int]:
    """Yield the type of each piece (sentencepiece_model.proto): the package itself does not show the user's own."""
    for number, piece in _fields(model):
        if number == 1 and isinstance(piece, bytes):
            yield next((value for field, value in _fields(piece) if field == 3 and isinstance(value, int)), 1)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a protocol buffer: an integer, or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        size, at = {1: (8, at), 5: (4, at)}.get(key & 7) or _varint(data, at)
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
