"""A model as vigtui knows it: one frozen value, one JSON file."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..backends.base import Generation
from ..core import config
from ..core.errors import FormatError, UsageError
from ..core.i18n import _

KINDS = ("gguf", "safetensors", "gptq", "adapter", "remote")
ORIGINS = ("added", "adopted", "pulled", "made")
VERSION = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_TAG = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})?")


@dataclass(frozen=True, slots=True)
class File:
    """One file of a model: where it lies, its size in bytes, and its sha256 in hex when it was hashed."""

    path: Path
    size: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a model. Raises UsageError for a name or tag that is not safe as a file name.

    `kind` is one of KINDS, `source` a repository @ commit, a path or a URL; `format` a prompt format's id; `context` in
    tokens; `parents` names of records; `made_with` the parameters of the work that made it; `generation` fields of
    Generation that this model wants; `added` an ISO 8601 time. `origin` is one of ORIGINS, or nothing where `source`
    tells enough.
    """

    name: str
    kind: str
    tag: str = ""
    files: tuple[File, ...] = ()
    source: str = ""
    format: str | None = None
    context: int | None = None
    licence: str = ""
    parents: tuple[str, ...] = ()
    made_with: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)
    architecture: str = ""
    parameters: int | None = None
    quantization: str = ""
    added: str = ""
    notices: tuple[str, ...] = ()
    origin: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or not _TAG.fullmatch(self.tag):
            raise UsageError(
                _("{name} cannot be a model's name.").format(name=self.ref),
                _("Use lower-case letters, digits, dots, dashes and underscores, and a colon before the tag."),
            )

    @property
    def ref(self) -> str:
        """The whole name: NAME:TAG, or NAME alone."""
        return f"{self.name}:{self.tag}" if self.tag else self.name

    @property
    def path(self) -> Path:
        """What an engine opens: the first file of a GGUF, or the folder of the files; nothing for a remote model."""
        if not self.files:
            return Path()
        first = self.files[0].path
        return first if self.kind == "gguf" or len(self.files) == 1 else first.parent

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def owned(self) -> bool:
        """Whether vigtui fetched or made the files; those that it was only shown lie where `source` says."""
        if self.origin:
            return self.origin in ("pulled", "made")
        return self.source not in ("", "vigtui") and not Path(self.source).is_absolute()


def same(old: Record, new: Record) -> bool:
    """Tell whether two records are of the same source: of a repository at one revision, whatever the commit."""
    if old.source == new.source:
        return True
    revisions = [one.made_with.get("revision") for one in (old, new)]
    repositories = [one.source.partition("@")[0] for one in (old, new)]
    return None is not revisions[0] == revisions[1] and repositories[0] == repositories[1]


def dump(record: Record) -> str:
    """Give the record as JSON text."""
    return json.dumps({"version": VERSION, **asdict(record)}, ensure_ascii=False, indent=2, default=str) + "\n"


def write(path: Path, record: Record) -> None:
    """Publish the record as the file `path`, at once."""
    config.write(path, dump(record))


def read(path: Path) -> Record:
    """Give the record in the file `path`. Raises FormatError, one sentence that names the file."""
    try:
        values = json.loads(path.read_bytes())
        return _parse(values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, UsageError) as error:
        raise FormatError(
            _("The record {path} is damaged: {reason}.").format(path=path, reason=_reason(error)),
            _("Remove that file and add the model again."),
        ) from error


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, UsageError) else str(error)[:200]


def _parse(values: Any) -> Record:
    values = dict(values)
    if values.pop("version") != VERSION:
        raise ValueError(_("it comes from another version of vigtui"))
    unknown = set(values) - set(_SHAPES)
    wrong = [name for name, shape in _SHAPES.items() if name in values and not shape(values[name])]
    if unknown or wrong:
        raise ValueError(_("unexpected {names}").format(names=", ".join(sorted([*unknown, *wrong]))))
    files = tuple(File(Path(f["path"]), f["size"], f["sha256"]) for f in values.pop("files", ()))
    lists = {name: tuple(values[name]) for name in ("parents", "notices") if name in values}
    generation: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in values.pop("generation", {}).items()
    }
    if generation:
        Generation(**generation)
    return Record(**{**values, **lists, "files": files, "generation": generation})


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**63)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _files(value: Any) -> bool:
    return isinstance(value, list) and all(map(_file, value))


def _file(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"path", "size", "sha256"}
        and _text(value["path"])
        and value["size"] is not None
        and _count(value["size"])
        and (value["sha256"] is None or bool(re.fullmatch("[0-9a-f]{64}", str(value["sha256"]))))
    )


_SHAPES = {
    "name": _text, "tag": _text, "kind": lambda value: value in KINDS, "files": _files, "source": _text,
    "format": lambda value: value is None or _text(value), "context": _count, "licence": _text, "parents": _texts,
    "made_with": _object, "generation": _object, "architecture": _text, "parameters": _count,
    "quantization": _text, "added": _text, "notices": _texts, "origin": lambda value: value in ("", *ORIGINS),
}  # fmt: skip
"""Field → is this JSON value one of its kind?"""
