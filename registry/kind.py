"""What a file or folder can be, and what its first bytes say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .convert.safetensors import HEADER_LIMIT
from .ggml import MAGICS
from .header import Header

MODELS = ("gguf", "safetensors", "gptq", "adapter")
"""The kinds that a record can have; the other kinds are reasons why it cannot. "safetensors" is a Hugging Face folder
in full precision, whether its weights are safetensors or PyTorch files."""
OLD_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""The magic number with which torch.save began before 1.6."""


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What lies at `path`.

    `kind` is one of MODELS, or why it is none: "missing", "empty", "unreadable", "folder", "lfs", "html", "ggml",
    "torch", "pickle", "meta", "awq", "weights", "tokenizer", "projector", "embedding", "imatrix", "vocabulary",
    "hollow" (an adapter without tensors or effect), "damaged", "truncated", "unknown". `detail` says more for people;
    `variant` tells more for programs: of "torch" "adapter" or "gptq" where that is inside, "strange" where unpickling
    would run code, of "ggml" "convertible" where it is. Sizes in bytes: `expected` from the headers, `size` the real
    one. `context` in tokens, `parameters` a count. `header` is that of a GGUF, `config` the config.json of a folder.
    `notices` are for people, `generation` what the record must override because the files are wrong.
    """

    path: Path
    kind: str
    detail: str = ""
    architecture: str = ""
    quantization: str = ""
    context: int | None = None
    parameters: int | None = None
    size: int = 0
    expected: int | None = None
    files: tuple[Path, ...] = ()
    header: Header | None = None
    config: Mapping[str, Any] | None = None
    variant: str = ""
    notices: tuple[str, ...] = ()
    generation: Mapping[str, Any] = field(default_factory=dict)


def magic(start: bytes) -> tuple[str, str]:
    """Give (kind, detail) by the first bytes, in the order of certainty."""
    if not start:
        return "empty", ""
    if start.startswith(b"version https://git-lfs"):
        return "lfs", ""
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "html", ""
    if start.startswith(b"GGUF"):
        return "gguf", ""
    if start[:4] in MAGICS:
        return "ggml", MAGICS[start[:4]]
    if start.startswith(b"PK\x03\x04"):
        return "torch", ""
    if start[0] == 0x80 and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle", ""
    if start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= HEADER_LIMIT:
        return "weights", ""
    if start[0] == 0x0A and b"<unk>" in start[:32]:
        return "tokenizer", ""
    return "unknown", ""
