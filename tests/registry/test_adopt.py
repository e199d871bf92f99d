"""Models of other tools, found where those tools leave them, and registered without a copy."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from vigtui.registry import hub
from vigtui.registry.adopt import adopt
from vigtui.registry.convert.model import convert
from vigtui.registry.remove import remove
from vigtui.registry.store import Registry

from .. import tiny

COMMIT, OLDER = "c" * 40, "d" * 40


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path / "llama.cpp"))


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    convert(tiny.folder(tmp_path / "hf"), tmp_path / "tiny.gguf", "q8_0")
    return tmp_path / "tiny.gguf"


def in_hub(
    source: Path, name: str = "", commit: str = COMMIT, ref: str = "main", repository: str = "Org/Model"
) -> Path:
    """Put a file or a folder into the hub's cache as `hf download` does."""
    home = hub.folder(repository)
    for file in [source] if source.is_file() else sorted(source.iterdir()):
        blob = home / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link = home / "snapshots" / commit / (name or file.name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / ref).write_text(commit)
    return home / "snapshots" / commit


def in_ollama(folder: Path, source: Path, model: str = "library/tiny", tag: str = "latest") -> Path:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    blob = folder / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, blob)
    manifest = folder / "manifests" / "registry.ollama.ai" / model / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layers = [
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"},
        {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "0" * 64},
    ]
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return blob


def names() -> list[str]:
    return [one.ref for one in Registry().all() if one.origin == "adopted"]


def test_nothing_is_there() -> None:
    assert adopt() == []


def test_the_hubs_cache(gguf: Path, tmp_path: Path) -> None:
    file = in_hub(gguf) / "tiny.gguf"
    in_hub(tmp_path / "hf", repository="Org/Folder")
    before = sorted((path, path.lstat().st_mtime_ns) for path in hub.cache().rglob("*"))
    assert [one.record.ref for one in adopt(dry_run=True) if one.record] == ["folder", "model:Q8_0"]
    assert names() == []
    adopt()
    assert names() == ["folder", "model:Q8_0"]
    record = Registry().find("model")
    assert record.files[0].path == file and record.source == f"Org/Model@{COMMIT}"
    assert record.files[0].sha256 == hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert sorted((path, path.lstat().st_mtime_ns) for path in hub.cache().rglob("*")) == before
    assert not any(one.record for one in adopt())
    remove(record)
    assert file.exists()


def test_revisions_have_names_of_their_own(tmp_path: Path) -> None:
    in_hub(tiny.folder(tmp_path / "new"), commit=COMMIT)
    in_hub(tiny.folder(tmp_path / "old", num_hidden_layers=1), commit=OLDER, ref="v1.0")
    adopt()
    assert names() == ["model", "model:v1.0"]
    assert Registry().find("model:v1.0").path.name == OLDER


def test_ollama(gguf: Path, tmp_path: Path) -> None:
    blob = in_ollama(tmp_path / "ollama", gguf)
    other = gguf.with_name("other.gguf")
    convert(tiny.folder(tmp_path / "hf2", num_hidden_layers=1), other, "f16")
    in_ollama(tmp_path / "ollama", other, "me/Chat", "7b")
    adopt()
    assert names() == ["me-chat:7b", "tiny:Q8_0"]
    record = Registry().find("tiny:Q8_0")
    assert record.path == blob and record.source == "ollama://library/tiny:latest"
    assert record.files[0].sha256 == blob.name.removeprefix("sha256-")
    remove(record)
    assert blob.exists()


def test_llama_cpp(gguf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    shutil.copy(gguf, folder / "org_First-GGUF_first.Q8_0.gguf")
    address = "https://huggingface.co/org/First-GGUF/resolve/main/first.Q8_0.gguf"
    (folder / "org_First-GGUF_first.Q8_0.gguf.json").write_text(json.dumps({"url": address, "etag": '"x"'}))
    convert(tiny.folder(tmp_path / "hf2", num_hidden_layers=1), folder / "org_Second_b.gguf", "f16")
    (folder / "manifest=org=Second=latest.json").write_text("{}")
    (folder / "mmproj-org_First.gguf").write_bytes(b"GGUF")
    adopt()
    assert names() == ["first-gguf:Q8_0", "second:F16"]


def test_what_cannot_be_adopted_is_named(gguf: Path, tmp_path: Path) -> None:
    link = in_hub(gguf) / "tiny.gguf"
    link.resolve().write_bytes(gguf.read_bytes()[:-100])
    in_ollama(tmp_path / "ollama", gguf).unlink()
    (tmp_path / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "tiny" / "bad").write_text("{")
    reasons = [one.reason for one in adopt()]
    assert len(reasons) == 2 and "cut short" in reasons[0] and "missing" in reasons[1]


def test_the_same_weights_are_taken_once(gguf: Path, tmp_path: Path) -> None:
    Registry().add(gguf, "mine")
    in_hub(gguf)
    (tmp_path / "llama.cpp").mkdir()
    (tmp_path / "llama.cpp" / "model.gguf").symlink_to(gguf)
    results = adopt()
    assert [one.record.ref if one.record else one.reason for one in results] == [
        "model:Q8_0",
        "it is registered already",
    ]


def test_a_name_that_is_taken_is_varied(gguf: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    convert(tiny.folder(tmp_path / "hf2", num_hidden_layers=1), other, "q8_0")
    Registry().add(other, "model:Q8_0")
    in_hub(gguf)
    adopt()
    assert names() == ["model:Q8_0-main"]
