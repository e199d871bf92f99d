"""What a person may name as a source of the workshop: a model, a path, or something to pull first."""

import glob
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.errors import FormatError, NotFoundError, UsageError
from ...core.i18n import _
from ...core.progress import Progress, silent
from .. import catalogue, document, hub
from .. import order as pulling
from ..check import refusal
from ..describe import describe, name_of
from ..hashes import sha256
from ..kind import Sniffed
from ..record import File, Record
from ..reference import parse
from ..sniff import sniff
from ..store import Registry
from .stage import Input

_REMOTE = re.compile(r"(?:[\w.-]+/)?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?:[@:].+)?")
_META = re.compile(r"consolidated\.\d+\.pth")
_PLAIN = ("F32", "F16", "BF16", "F64")
_WORDS = (
    "tokenizer.json", "vocab.*", "merges.txt", "*.model", "*.tiktoken", "tekken.json", "tokenization*.py",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """What a stage starts from: `kind` is "hf", "gguf", "meta", "ggml" or "adapter".

    `record` is its record, or one made up for what is not registered. `size` are the bytes of its weights, `parameters`
    a count, estimated where the files are not here yet; `dtype` the type of its weights, in capitals. `pull` is what
    must be fetched first.
    """

    kind: str
    path: Path
    record: Record
    size: int
    parameters: int
    dtype: str = ""
    files: tuple[Path, ...] = ()
    pull: pulling.Order | None = None

    @property
    def quantized(self) -> bool:
        """Whether its weights have lost precision already."""
        return bool(self.dtype) and self.dtype not in _PLAIN

    @property
    def words(self) -> bool:
        """Whether the folder has a tokenizer, or will have one."""
        if self.pull:
            return any(Path(file.name).match(name) for name in _WORDS for file in self.pull.files)
        folders = (self.path, self.path.parent) if self.kind == "meta" else (self.path,)
        return any(any(folder.glob(name)) for name in _WORDS for folder in folders)

    def settings(self) -> tuple[Mapping[str, Any], Path]:
        """Give its config.json and where that lies, on the hub for what is not here yet. Raises NetworkError."""
        if self.pull is None:
            return document.optional(self.path / "config.json"), self.path / "config.json"
        place = Path(self.pull.repository) / "config.json"
        if place.name not in [file.name for file in self.pull.files]:
            return {}, place
        try:
            value = document.parse(hub.small(self.pull.repository, self.pull.commit, place.name, document.LIMIT))
        except ValueError:
            return {}, place
        return value if isinstance(value, dict) else {}, place


def find(text: str, kinds: Sequence[str] = ("safetensors", "gguf")) -> Source:
    """Give what `text` names; of a repository the first of the forms `kinds` that it has. Nothing is fetched.

    A model's whole name goes before a path, and a path before what only begins a name: what was made of the folder
    `llama` is called llama:Q4_K_M. Raises NotFoundError, NetworkError, UsageError, or FormatError for a path to
    something else.
    """
    if not text:  # as a path that would be the folder one stands in
        raise UsageError(_("A model's name is empty."), _("`vigtui list` shows the models."))
    path = Path(text).expanduser()
    if "://" not in text and (os.sep in text or text.startswith(("~", "."))) and (path.exists() or not _remote(text)):
        return at(path)
    if _remote(text):
        return _pulled(text, kinds)
    try:
        found = Registry().find(text)
        shadowed = found.ref.casefold() != text.casefold() and path.exists() and _kind(sniff(path))
        return at(path) if shadowed else of(found)
    except NotFoundError:
        if path.exists():
            return at(path)
        if catalogue.named(text.partition(":")[0].partition("@")[0]):
            return _pulled(text, kinds)
        raise


def whole(name: str) -> UsageError:
    """Give the error for a model that stands where an adapter is wanted."""
    return UsageError(
        _("{name} is a whole model, not an adapter.").format(name=name), _("Give the folder of a LoRA adapter.")
    )


def _remote(text: str) -> bool:
    return "://" in text or bool(_REMOTE.fullmatch(text))


def of(record: Record) -> Source:
    """Give the source that a registered model is. Raises NotFoundError, UsageError or FormatError."""
    return replace(at(record.path, record.ref), record=record)


def at(path: Path, name: str = "") -> Source:
    """Give the source that lies at `path`, called `name` in refusals.

    Raises NotFoundError, UsageError or FormatError for what the workshop cannot use.
    """
    part = _META.fullmatch(path.name) and (path.parent / "params.json").is_file()
    found = sniff(path.parent if part else path)
    if found.kind == "gptq":
        raise UsageError(
            _("{name} is quantized already ({type}).").format(name=name or path, type=found.quantization or "GPTQ"),
            _("Start from the model that it was made from."),
        )
    kind = _kind(found)
    if kind is None:
        raise refusal(found)
    files = _members(found, kind)
    size = found.size or sum(file.stat().st_size for file in files)
    dtype = found.quantization.upper()
    parameters = found.parameters or size * 8 // (32 if dtype == "F32" else 16)
    place = found.path
    if kind == "adapter" and place.is_file() and place.suffix != ".gguf":  # a checkpoint of 2023: the folder is meant
        place = place.parent
    return Source(kind, place, _record(replace(found, path=place), files), size, parameters, dtype, files)


def _kind(found: Sniffed) -> str | None:
    if found.variant == "adapter" and found.kind in ("torch", "weights", "pickle"):
        return "adapter"
    if found.kind == "torch" and found.config is not None and not found.variant:
        return "hf"
    if found.kind == "meta" and found.detail:  # it lacks something, and says what
        return None
    if found.kind == "ggml" and found.variant != "convertible":
        return None
    return {"safetensors": "hf", "gguf": "gguf", "meta": "meta", "ggml": "ggml", "adapter": "adapter"}.get(found.kind)


def _members(found: Sniffed, kind: str) -> tuple[Path, ...]:
    """Give every file that decides what the model is."""
    if kind == "ggml":  # NAME, NAME.1 and so on
        return (found.path, *sorted(found.path.parent.glob(f"{glob.escape(found.path.name)}.[0-9]*")))
    if kind == "gguf" or not found.path.is_dir():
        return found.files or (found.path,)
    beside = {file for pattern in ("*.json", "*.model", "*.jinja", "merges.txt") for file in found.path.glob(pattern)}
    weights = {*found.files, *found.path.glob("pytorch_model*.bin" if kind == "hf" else "adapter_model.*")}
    if kind == "meta":
        beside |= {file for file in (found.path.parent / "tokenizer.model",) if file.is_file()}
        weights = {*found.path.glob("consolidated.*.pth")}
    if any(file.suffix == ".safetensors" for file in found.files):
        weights = set(found.files)
    return tuple(sorted(beside | weights))


def _record(found: Sniffed, files: Sequence[Path]) -> Record:
    if found.kind in ("safetensors", "gguf", "adapter"):
        return describe(found.path)
    held = tuple(File(file.absolute(), file.stat().st_size) for file in files)
    kind = "adapter" if found.variant == "adapter" else "safetensors"
    return Record(name_of(found), kind, files=held, source=str(found.path.absolute()), context=found.context)


def _pulled(text: str, kinds: Sequence[str]) -> Source:
    """Give the model of a repository: the one that was pulled already, else what is to be pulled."""
    reference = parse(text, full=True)
    for one in Registry().all():
        revisions = (one.made_with.get("revision"), one.source.rpartition("@")[2])
        same = one.source.partition("@")[0].casefold() == reference.repository.casefold() != ""
        wanted = not reference.tag or one.tag.casefold() == reference.tag.casefold()
        if same and wanted and one.kind in kinds and (reference.revision or "main") in revisions and not reference.file:
            return of(one)
    order = pulling.prepare(text, force=True, forms=kinds)
    if order.record.kind not in (*kinds, "adapter"):
        if "safetensors" not in kinds:
            raise whole(text)
        raise FormatError(
            _("{name} holds no weights that the workshop can start from.").format(name=text),
            _("It starts from a Hugging Face folder in full precision; name the original repository."),
        )
    return _expected(order)


def _expected(order: pulling.Order) -> Source:
    """Give what is known of a source before its bytes are here."""
    weights = [file for file in order.files if file.name.endswith((".safetensors", ".bin", ".gguf"))]
    size, commit = sum(file.size for file in weights), hub.folder(order.repository) / "snapshots" / order.commit
    kind = {"gguf": "gguf", "adapter": "adapter"}.get(order.record.kind, "hf")
    path = commit / order.files[0].name if kind == "gguf" else commit
    return Source(kind, path, order.record, size, size // 2, order.record.quantization, pull=order)


def content(source: Source, progress: Progress = silent) -> Input:
    """Give the source as what a stage reads, told from any other by the hashes of its files, which are read once."""
    if source.pull:
        return Input(source.path, f"{source.pull.repository}@{source.pull.commit}", source.size)
    known = {file.path: file.sha256 for file in source.record.files if file.sha256}
    digests = {file.name: known.get(file) or sha256(file, progress) for file in source.files}
    listing = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return Input(source.path, hashlib.sha256(listing.encode()).hexdigest(), source.size)
