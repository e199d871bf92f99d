"""The registry: adding, finding by any abbreviation, publishing at once, removing."""

import hashlib
import multiprocessing
import os
from pathlib import Path

import pytest
from vigtui.core import paths
from vigtui.core.errors import FormatError, NotFoundError, UsageError
from vigtui.registry import hashes
from vigtui.registry.convert.model import convert
from vigtui.registry.record import Record
from vigtui.registry.store import Registry

from .. import tiny


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    convert(tiny.folder(tmp_path / "hf"), tmp_path / "Vigogne Chat.Q8_0.gguf", "q8_0")
    return tmp_path / "Vigogne Chat.Q8_0.gguf"


def publish(*refs: str) -> Registry:
    registry = Registry()
    for ref in refs:
        name, _colon, tag = ref.partition(":")
        registry.publish(Record(name, "gguf", tag, source=ref))
    return registry


def test_the_embedded_model_needs_no_set_up() -> None:
    embedded = Registry().find("vigogneau")
    assert embedded.kind == "gguf" and embedded.format == "vigogne-chat-v2"
    assert embedded.generation == {"temperature": 0.0, "repetition_penalty": 1.0}
    assert not (paths.models()).exists()


def test_a_file_is_registered_where_it_lies(gguf: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    added = Registry().add(gguf, progress=lambda *step: seen.append(step))
    assert added.ref == "vigogne-chat:Q8_0"
    assert added == Registry().find("vigogne-chat:q8_0")
    assert added.files[0].path == gguf
    assert added.files[0].sha256 == hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert (added.architecture, added.quantization, added.context) == ("llama", "Q8_0", 256)
    assert added.parameters == sum(array.size for array in tiny.weights(tiny.config()).values())
    assert seen[-1][1:] == (gguf.stat().st_size, gguf.stat().st_size)
    assert gguf.is_file()


def test_a_folder_and_an_adapter(tmp_path: Path) -> None:
    base = tiny.folder(tmp_path / "Base_Model")
    added = Registry().add(base)
    assert (added.ref, added.kind, added.path, added.quantization) == ("base_model", "safetensors", base, "F32")
    lora = Registry().add(tiny.adapter(tmp_path / "lora", base), "marin:v1")
    assert (lora.ref, lora.kind, lora.parents) == ("marin:v1", "adapter", (str(base),))


def test_a_hub_snapshot_is_named_by_its_repository(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--bofenghuang--Vigogne-2-7B" / "snapshots" / "0123abcd"
    assert Registry().add(tiny.folder(snapshot)).name == "vigogne-2-7b"


def test_adding_again_refreshes_and_another_file_clashes(gguf: Path, tmp_path: Path) -> None:
    Registry().add(gguf, "a")
    gguf.write_bytes(gguf.read_bytes() + b"\0" * 32)
    assert Registry().add(gguf, "a").size == gguf.stat().st_size
    other = tmp_path / "other.gguf"
    other.write_bytes(gguf.read_bytes())
    with pytest.raises(UsageError) as caught:
        Registry().add(other, "a")
    assert "--name" in caught.value.hint
    with pytest.raises(UsageError):
        Registry().add(other, "vigogneau:")
    assert Registry().add(other, "b").ref == "b:Q8_0"


@pytest.mark.parametrize("name", ["A", "a/b", "../a", "a:b:c", ":"])
def test_unsafe_names_are_refused(gguf: Path, name: str) -> None:
    with pytest.raises(UsageError):
        Registry().add(gguf, name)
    assert Registry().folder.is_dir() is False


def test_what_is_no_model_is_not_added(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_text("<!DOCTYPE html><html>")
    with pytest.raises(FormatError):
        Registry().add(tmp_path / "page.gguf")
    with pytest.raises(NotFoundError):
        Registry().add(tmp_path / "nothing.gguf")


def test_finding() -> None:
    registry = publish("alpha-7b:Q4_0", "alpha-7b:Q8_0", "alpha-13b:Q4_0", "beta", "beta-chat")
    for name, ref in {
        "alpha-7b:Q8_0": "alpha-7b:Q8_0",
        "ALPHA-7B:q8_0": "alpha-7b:Q8_0",
        "alpha-13b": "alpha-13b:Q4_0",
        "alpha-1": "alpha-13b:Q4_0",
        "13b": "alpha-13b:Q4_0",
        "beta": "beta",
        "beta-": "beta-chat",
        "chat": "beta-chat",
        "vigogneau": "vigogneau",
    }.items():
        assert registry.find(name).ref == ref


def test_what_is_not_found_names_what_is_near() -> None:
    registry = publish("alpha-7b:Q4_0", "alpha-7b:Q8_0")
    with pytest.raises(NotFoundError) as caught:
        registry.find("alpha-7b")
    assert "alpha-7b:Q4_0" in caught.value.hint and "alpha-7b:Q8_0" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        registry.find("vigoneau")
    assert "vigogneau" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        registry.find("zzzzzzzz")
    assert "vigtui list" in caught.value.hint


def test_a_damaged_record_is_skipped_and_named() -> None:
    registry = publish("alpha", "beta:Q4_0")
    (registry.folder / "alpha@.json").write_text('{"version": 1')
    (registry.folder / "gamma@.json").write_text((registry.folder / "beta@Q4_0.json").read_text())
    (registry.folder / "folder.json").mkdir()
    assert [one.ref for one in registry.all() if not one.ref.startswith("vigogneau")] == ["beta:Q4_0"]
    assert len(registry.damaged) == 3
    assert any("alpha@.json" in sentence for sentence in registry.damaged)


def test_removing(gguf: Path) -> None:
    registry = Registry()
    added = registry.add(gguf)
    registry.remove(added)
    assert gguf.is_file()
    with pytest.raises(NotFoundError):
        registry.find(added.ref)
    with pytest.raises(NotFoundError):
        registry.remove(added)
    with pytest.raises(UsageError):
        registry.remove(registry.find("vigogneau"))


def _publish(home: str, source: str, done: "multiprocessing.Queue[str]") -> None:
    os.environ["VIGTUI_HOME"] = home
    try:
        Registry().publish(Record("same", "gguf", source=source))
        done.put("published")
    except UsageError:
        done.put("refused")


def test_of_two_processes_one_publishes(home: Path) -> None:
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    workers = [context.Process(target=_publish, args=(str(home), f"/{n}", done)) for n in range(3)]
    for worker in workers:
        worker.start()
    results = sorted(done.get(timeout=60) for _worker in workers)
    for worker in workers:
        worker.join()
    assert results == ["published", "refused", "refused"]
    assert [one.name for one in Registry().all() if one.name == "same"] == ["same"]


def test_a_hash_is_computed_once(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashes.sha256(gguf)
    steps: list[int] = []
    assert hashes.sha256(gguf, lambda _stage, done, _total: steps.append(done)) == digest
    assert steps == []
    gguf.write_bytes(b"other")
    assert hashes.sha256(gguf) == hashlib.sha256(b"other").hexdigest()
    (paths.cache() / "hashes.json").write_text("{")
    assert hashes.sha256(gguf) == hashlib.sha256(b"other").hexdigest()
    gguf.unlink()
    with pytest.raises(NotFoundError):
        hashes.sha256(gguf)


def test_the_hash_of_a_model(gguf: Path, tmp_path: Path) -> None:
    added = Registry().add(gguf)
    assert hashes.fingerprint(added) == added.files[0].sha256
    folder = Registry().add(tiny.folder(tmp_path / "hf"), "hf")
    before = hashes.fingerprint(folder)
    (tmp_path / "hf" / "tokenizer.model").write_bytes(b"x")
    assert before != hashes.fingerprint(folder) and len(before) == 64
