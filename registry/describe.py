"""A record made from what lies on disk."""

import re
from datetime import UTC, datetime
from pathlib import Path

from .check import refusal
from .kind import MODELS, Sniffed
from .record import File, Record
from .sniff import sniff

_QUANTIZATION = r"(i?q\d\w*|tq\d_0|f16|f32|bf16|fp16|mxfp4)"


def describe(path: Path, name: str | None = None) -> Record:
    """Give the record of the model at `path`, neither published nor hashed; `name` is NAME or NAME:TAG.

    Raises UsageError for a name that cannot be, NotFoundError or FormatError when there is no model.
    """
    found = sniff(path)
    if found.kind not in MODELS:
        raise refusal(found)
    chosen, colon, tag = (name_of(found) if name is None else name).partition(":")
    if not colon and found.kind == "gguf":
        tag = found.quantization
    files = tuple(File(file.absolute(), file.stat().st_size) for file in found.files or (found.path,))
    return Record(
        name=chosen,
        tag=tag,
        kind=found.kind,
        files=files,
        source=str(found.path.absolute()),
        context=found.context,
        parents=_parents(found),
        architecture=found.architecture,
        parameters=found.parameters,
        quantization=found.quantization,
        added=datetime.now(UTC).isoformat(timespec="seconds"),
        generation=found.generation,
        notices=found.notices,
    )


def name_of(found: Sniffed) -> str:
    """Give a name from where the model lies: a hub repository's last part, else the file's or folder's own name."""
    path = found.path.absolute()
    stem = path.name if path.is_dir() else path.stem
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        stem = path.parent.parent.name.rpartition("--")[2]
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", stem.lower())
    stem = re.sub(rf"[._-]{_QUANTIZATION}$", "", stem)
    return slug(stem)


def slug(text: str) -> str:
    """Give a name that can be one, made of `text`."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:128] or "model"


def _parents(found: Sniffed) -> tuple[str, ...]:
    base = found.config.get("base_model_name_or_path") if found.kind == "adapter" and found.config else None
    return (base,) if isinstance(base, str) and base else ()
