"""Models that other tools keep on this machine, found and registered where they lie; nothing is copied or changed.

- the hub's cache: models--ORG--REPO/snapshots/COMMIT (huggingface_hub, "Understand caching");
- Ollama: manifests/HOST/NAMESPACE/MODEL/TAG name blobs/sha256-… by digest (manifest/paths.go of ollama);
- llama.cpp: one folder of ORG_REPO_FILE.gguf, each with a .json that holds its address (common/download.cpp).
"""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.errors import FormatError, NotFoundError, UsageError
from ..core.i18n import _
from . import document, hub
from .check import check
from .describe import describe, slug
from .record import File, Record
from .store import Registry

_MODEL = "application/vnd.ollama.image.model"
_ADAPTER = "application/vnd.ollama.image.adapter"
_BY_TAG = "latest"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that may be a model: where it lies, names for it by preference (NAME:TAG), and where it came from."""

    path: Path
    names: tuple[str, ...]
    tool: str
    source: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of a candidate: its record, or the `reason` why there is none."""

    candidate: Candidate
    record: Record | None
    reason: str = ""


def adopt(dry_run: bool = False) -> list[Adopted]:
    """Register what other tools hold and vigtui does not know yet; with `dry_run` only tell of it."""
    registry = Registry()
    known = {place for one in registry.all() for file in one.files for place in (file.path, file.path.resolve())}
    taken = {one.ref for one in registry.all()}
    found: list[Adopted] = []
    for candidate in candidates():
        one = _one(candidate, known, taken)
        if one.record and not dry_run:
            try:
                registry.publish(one.record)
            except (UsageError, NotFoundError) as error:  # another process was faster
                one = replace(one, record=None, reason=error.message)
        if one.record:
            taken.add(one.record.ref)
            known |= {file.path.resolve() for file in one.record.files}
        found.append(one)
    return found


def candidates() -> Iterator[Candidate]:
    """Yield what the hub's cache, Ollama and llama.cpp hold, in this order."""
    yield from _hub(hub.cache())
    yield from _ollama(ollama())
    yield from _llama_cpp(llama_cpp())


def ollama() -> Path:
    """Give the folder of Ollama's models: OLLAMA_MODELS, or its default."""
    chosen = os.environ.get("OLLAMA_MODELS")
    return Path(chosen).expanduser() if chosen else Path.home() / ".ollama" / "models"


def llama_cpp() -> Path:
    """Give llama.cpp's folder of downloads: LLAMA_CACHE, or its default."""
    if chosen := os.environ.get("LLAMA_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "llama.cpp"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llama.cpp"


def _one(candidate: Candidate, known: set[Path], taken: set[str]) -> Adopted:
    if not candidate.path.exists():
        return Adopted(candidate, None, _("a file of it is missing"))
    try:
        seen = describe(candidate.path)
        check(candidate.path)
    except (FormatError, NotFoundError) as error:
        return Adopted(candidate, None, error.message)
    weights = max(seen.files, key=lambda file: file.size, default=File(candidate.path, 0))
    if weights.path.resolve() in known:
        return Adopted(candidate, None, _("it is registered already"))
    for name in candidate.names:
        own, _colon, tag = name.replace("{quantization}", seen.quantization.removeprefix("GPTQ-")).partition(":")
        tag = "" if seen.kind == "safetensors" and tag == seen.quantization else _tag(tag)
        new = replace(seen, name=slug(own), tag=tag, files=_hashed(seen.files), origin="adopted")
        if new.ref not in taken:
            made_with = {"revision": candidate.revision} if candidate.revision else {}
            return Adopted(candidate, replace(new, source=candidate.source or new.source, made_with=made_with))
    return Adopted(candidate, None, _("its name is taken"))


def _hashed(files: tuple[File, ...]) -> tuple[File, ...]:
    """Take the hashes that the stores use as names: 64 digits are a sha256."""
    names = ((file, file.path.resolve().name.removeprefix("sha256-")) for file in files)
    return tuple(replace(file, sha256=name if re.fullmatch("[0-9a-f]{64}", name) else None) for file, name in names)


def _tag(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:64]


def _hub(cache: Path) -> Iterator[Candidate]:
    for folder in sorted(cache.glob("models--*--*")):
        repository = folder.name.removeprefix("models--").replace("--", "/", 1)
        refs = _refs(folder / "refs")
        snapshots = [one for one in sorted((folder / "snapshots").glob("*")) if one.is_dir()]
        for snapshot in sorted(snapshots, key=lambda one: refs.get(one.name) != "main"):
            revision = refs.get(snapshot.name, snapshot.name)
            name = repository.rpartition("/")[2]
            for path in _models_in(snapshot):
                tags = ["{quantization}", f"{{quantization}}-{revision[:12]}"]
                if path.is_dir():
                    tags = ["{quantization}" if revision == "main" else revision[:12], revision[:12]]
                names = tuple(f"{name}:{tag}" for tag in tags)
                source = f"{repository}@{snapshot.name}"
                yield Candidate(path, names, _("hub cache"), source, revision)


def _refs(folder: Path) -> dict[str, str]:
    """Give commit → branch or tag; main wins over the others."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files.sort(key=lambda path: path.name == "main")
    return {_text(path): str(path.relative_to(folder)) for path in files}


def _models_in(snapshot: Path) -> list[Path]:
    """Give the models of a snapshot: each GGUF but the later parts of split ones, or the folder itself."""
    ggufs = [path for path in sorted(snapshot.rglob("*.gguf")) if _whole(path)]
    settings = ("config.json", "adapter_config.json")
    return ggufs or [snapshot for name in settings if (snapshot / name).exists()][:1]


def _whole(path: Path) -> bool:
    part = re.search(r"-(\d{5})-of-\d{5}\.gguf$", path.name)
    return (part is None or part[1] == "00001") and "mmproj" not in path.name.lower()


def _ollama(folder: Path) -> Iterator[Candidate]:
    for path in sorted((folder / "manifests").glob("*/*/*/*")):
        _host, namespace, model, tag = path.relative_to(folder / "manifests").parts
        own = model if namespace == "library" else f"{namespace}-{model}"
        layers = document.optional(path).get("layers")
        for layer in layers if isinstance(layers, list) else ():
            kind, digest = (layer.get("mediaType"), layer.get("digest")) if isinstance(layer, dict) else ("", "")
            if kind in (_MODEL, _ADAPTER) and re.fullmatch("sha256:[0-9a-f]{64}", str(digest)):
                suffix = "-adapter" if kind == _ADAPTER else ""
                tags = ("{quantization}", tag) if tag == _BY_TAG else (tag, f"{tag}-{{quantization}}")
                names = tuple(f"{own}{suffix}:{one}" for one in tags)
                blob = folder / "blobs" / str(digest).replace(":", "-")
                yield Candidate(blob, names, "Ollama", f"ollama://{namespace}/{model}:{tag}")


def _llama_cpp(folder: Path) -> Iterator[Candidate]:
    for path in sorted(folder.glob("*.gguf")):
        if not _whole(path):
            continue
        address = str(document.optional(path.with_name(f"{path.name}.json")).get("url", ""))
        match = re.match(r"https?://[^/]+/([\w.-]+)/([\w.-]+)/resolve/([^/]+)/", address)
        repository = f"{match[1]}/{match[2]}" if match else _manifest(folder, path.name)
        own = repository.rpartition("/")[2] or path.stem
        names = (f"{own}:{{quantization}}", f"{slug(path.stem)}:{{quantization}}")
        yield Candidate(path, names, "llama.cpp", address)


def _manifest(folder: Path, name: str) -> str:
    """Give the repository of a download, from the manifest=ORG=REPO=TAG.json files beside it."""
    for path in folder.glob("manifest=*=*=*.json"):
        _word, owner, repository, _rest = path.name.split("=", 3)
        if name.startswith(f"{owner}_{repository}_"):
            return f"{owner}/{repository}"
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:200].strip()
    except OSError:
        return ""
