"""The header of the files that llama.cpp wrote before GGUF: ggml, ggmf, ggjt 1 to 3, and ggla adapters.

Layout: llama.cpp of 2023, `llama_file_loader` (llama.cpp) and convert_lora_to_ggml.py; little-endian throughout. The
header says neither the file's length nor the number of tensors: both follow from the sizes of a LLaMA.
"""

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from ..core.errors import FormatError
from ..core.i18n import _
from . import header

MAGICS = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT", b"algg": "GGLA", b"nsgg": "GGSN", b"ccgg": "GGCC"}
FTYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 4: "Q4_1_SOME_F16", 5: "Q4_2", 6: "Q4_3", 7: "Q8_0", 8: "Q5_0",
          9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
          17: "Q5_K_M", 18: "Q6_K"}  # fmt: skip
_OLD = {2: ("Q4_0", 32, 20), 3: ("Q4_1", 32, 24), 4: ("Q4_2", 16, 10), 5: ("Q4_3", 16, 12), 8: ("Q8_0", 32, 36)}
"""Blocks before ggjt 3, where scales were float32 and Q4_2 and Q4_3 existed."""
_LASTING = frozenset({0, 1, 2, 3, 6, 7, 8})
_LATER = frozenset({10, 11, 12, 13, 14})
"""Types that GGUF still has: of every version, and of ggjt 2 and 3 (the k-quants)."""
_TEXT = 16 << 20
"""Bytes of the longest vocabulary."""
_PLAUSIBLE = ((16, 1 << 18), (32, 1 << 15), (1, 1 << 15), (1, 512), (1, 512), (1, 1 << 12), (0, 1 << 16))
"""Bounds of n_vocab, n_embd, n_mult, n_head, n_layer, n_rot and ftype of anything that was a LLaMA."""


@dataclass(frozen=True, slots=True)
class Legacy:
    """A file of 2023: `kind` as in MAGICS, `version` 0 for plain ggml; `quantization` and counts of a LLaMA.

    `tokens` is the byte where the vocabulary begins. `expected` is the length in bytes as far as the header tells it.
    """

    path: Path
    kind: str
    version: int
    quantization: str = ""
    vocabulary: int = 0
    embedding: int = 0
    heads: int = 0
    layers: int = 0
    tokens: int = 0
    rank: int = 0
    tensors: tuple[header.Tensor, ...] = ()
    expected: int = 0
    size: int = 0

    @property
    def parameters(self) -> int:
        """Weights in all tensors."""
        return sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def title(self) -> str:
        """What people call it: GGJT v3."""
        return f"{self.kind} v{self.version}" if self.version else self.kind

    @property
    def convertible(self) -> bool:
        """Whether its weights can become GGUF without being quantized again; see convert/legacy.py."""
        return bool(self.layers) and self.kind in ("GGML", "GGMF", "GGJT") and not self.strange

    @property
    def strange(self) -> tuple[str, ...]:
        """The types of tensors in it that GGUF does not have."""
        known = _LASTING | (_LATER if self.version >= 2 and self.kind == "GGJT" else frozenset())
        kinds = sorted({tensor.kind for tensor in self.tensors} - known)
        return tuple(block(kind, self)[0] for kind in kinds)

    @property
    def parts(self) -> tuple[Path, ...]:
        """The files NAME, NAME.1, … that a model of several parts consists of; some may be missing."""
        table = next((tensor for tensor in self.tensors if tensor.name == "tok_embeddings.weight"), None)
        count = self.embedding // max(1, table.shape[0]) if table else 1
        others = [self.path.with_name(f"{self.path.name}.{n}") for n in range(1, min(count, 64))]
        return (self.path, *others)


def words(found: Legacy) -> list[tuple[bytes, float | None]]:
    """Give the vocabulary: the text of each token and its score, None in files that have none. Raises FormatError."""
    with found.path.open("rb", buffering=1 << 16) as file:
        file.seek(found.tokens)
        tokens: list[tuple[bytes, float | None]] = []
        budget = _TEXT
        for _index in range(found.vocabulary):
            (length,) = _numbers(file, 1, found.path, found.size)
            budget -= length
            if length > 4096 or budget < 0:
                raise _damaged(found.path)
            text = file.read(length)
            scored = found.kind != "GGML"
            tokens.append((text, struct.unpack("<f", file.read(4))[0] if scored else None))
    return tokens


def read(path: Path) -> Legacy:
    """Give what the file says; no counts where it is not a LLaMA's. Raises FormatError, CutShort when it ends early."""
    size = path.stat().st_size
    with path.open("rb", buffering=1 << 16) as file:
        kind = MAGICS[file.read(4)]
        version = _numbers(file, 1, path, size)[0] if kind in ("GGMF", "GGJT", "GGLA") else 0
        if kind == "GGLA":
            rank, _alpha = _numbers(file, 2, path, size)
            tensors, end = _tensors(file, path, size, "GGLA", version)
            return Legacy(path, kind, version, rank=rank, tensors=tensors, expected=end, size=size)
        if kind in ("GGSN", "GGCC") or size < file.tell() + 28:
            return Legacy(path, kind, version, size=size)
        values = _numbers(file, 7, path, size)
        if not all(low <= value <= high for value, (low, high) in zip(values, _PLAUSIBLE, strict=True)):
            return Legacy(path, kind, version, size=size)
        return _llama(file, path, size, kind, version, values)


def _llama(file: BinaryIO, path: Path, size: int, kind: str, version: int, values: tuple[int, ...]) -> Legacy:
    words, embedding, _mult, heads, layers, _rot, ftype = values
    start = file.tell()
    for _index in range(words):
        (length,) = _numbers(file, 1, path, size)
        if length > 4096:
            return Legacy(path, kind, version, size=size)
        file.read(length + (4 if kind != "GGML" else 0))
    tensors, end = _tensors(file, path, size, kind, version)
    whole = end if path.suffix[1:].isdecimal() or len(tensors) >= 9 * layers + 3 else None
    if whole is None:
        raise header.CutShort(path, size)
    name = FTYPES.get(ftype % 1000, "")
    return Legacy(path, kind, version, name, words, embedding, heads, layers, start, 0, tensors, whole, size)


def _tensors(file: BinaryIO, path: Path, size: int, kind: str, version: int) -> tuple[tuple[header.Tensor, ...], int]:
    """Give the tensors up to the end of the file, with their places as offsets, and where the last one ends."""
    found: list[header.Tensor] = []
    while (at := file.tell()) < size:
        if len(found) >= 4096:
            raise _damaged(path)
        dimensions, length, type_id = _numbers(file, 3, path, size)
        if not 0 < dimensions <= 4 or not 0 < length < 4096:
            raise _damaged(path)
        shape = _numbers(file, dimensions, path, size)
        name = file.read(length).decode("utf-8", "replace")
        start = file.tell() if kind in ("GGML", "GGMF") else -(-file.tell() // 32) * 32
        tensor = header.Tensor(name, shape, type_id, start)
        end = start + _bytes(tensor, kind, version, path)
        if end > size:
            raise header.CutShort(path, size, end)
        found.append(tensor)
        file.seek(end)
    return tuple(found), at


def _bytes(tensor: header.Tensor, kind: str, version: int, path: Path) -> int:
    found = _block(tensor.kind, kind, version)
    if found is None or prod(tensor.shape) > 1 << 40:
        raise _damaged(path)
    return prod(tensor.shape) // found[1] * found[2]


def block(kind: int, found: Legacy) -> tuple[str, int, int]:
    """Give the name, the elements and the bytes of a block of the tensor type `kind` in this file."""
    return _block(kind, found.kind, found.version) or ("?", 1, 0)


def _block(number: int, kind: str, version: int) -> tuple[str, int, int] | None:
    old = kind in ("GGML", "GGMF") or (kind == "GGJT" and version < 3)
    return (_OLD if old else {}).get(number) or header.TYPES.get(number)


def _numbers(file: BinaryIO, count: int, path: Path, size: int) -> tuple[int, ...]:
    data = file.read(4 * count)
    if len(data) < 4 * count:
        raise header.CutShort(path, size)
    return struct.unpack(f"<{count}I", data)


def _damaged(path: Path) -> FormatError:
    return FormatError(_("{path} has a damaged header.").format(path=path), _("Fetch it again."))
