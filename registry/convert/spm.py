"""A SentencePiece model file, tokenizer.model, as GGUF wants it.

It is a protocol buffer (sentencepiece_model.proto of google/sentencepiece); its few fields that matter are read here,
among them two that the sentencepiece package does not show: the model type and the normalizer.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.errors import FormatError
from ...core.i18n import _
from .words import NORMAL, Vocabulary, rewritten

_LIMIT = 64 << 20


def read(path: Path) -> Vocabulary:
    """Give the pieces of the SentencePiece model at `path`, a BPE one. Raises FormatError."""
    vocabulary, trainer, normalizer = Vocabulary(), {}, {}
    try:
        if path.stat().st_size > _LIMIT:
            raise ValueError("too large")
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                piece = dict(_fields(value))
                score = struct.unpack("<f", piece.get(2, b"\0\0\0\0"))[0]
                vocabulary.append(piece.get(1, b"").decode(), score, piece.get(3, NORMAL))
            elif number == 2:
                trainer = dict(_fields(value))
            elif number == 3:
                normalizer = dict(_fields(value))
    except (OSError, ValueError, IndexError, TypeError, AttributeError, struct.error) as error:
        raise FormatError(_("{path} is damaged.").format(path=path), _("Fetch it again.")) from error
    if trainer.get(3, 1) != 2:  # model_type: 1 Unigram, 2 BPE
        raise FormatError(
            _("{path} is not a BPE model, and llama.cpp reads only those for Llama.").format(path=path),
            _("Use another backend for this model."),
        )
    if normalizer.get(2) or normalizer.get(4, 1):  # precompiled_charsmap, remove_extra_whitespaces
        vocabulary.notices.append(rewritten())
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
