"""Removing: what vigtui brought goes, what anything else uses stays, and nobody is surprised."""

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest
from vigtui.core import paths
from vigtui.core.errors import NotFoundError, UsageError
from vigtui.registry import hub
from vigtui.registry.convert.model import convert
from vigtui.registry.record import File, Record
from vigtui.registry.remove import plan, remove
from vigtui.registry.store import Registry

from .. import tiny

COMMIT, LATER = "a" * 40, "b" * 40


def snapshot(commit: str, *names: str, digest: str = "0") -> list[Path]:
    """Files in the hub's cache as the hub's own client leaves them."""
    repository = hub.folder("org/model")
    links = []
    for name in names:
        blob = repository / "blobs" / (digest * 60 + name[:4])
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(b"x" * 1000)
        link = repository / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
        links.append(link)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    return links


def published(name: str, *files: Path, source: str = f"org/model@{COMMIT}", **fields: str) -> Record:
    kept = tuple(File(file, file.stat().st_size) for file in files)
    return Registry().publish(Record(name, "gguf", files=kept, source=source, **fields))


def test_a_pulled_model_goes_with_its_files() -> None:
    record = published("a", *snapshot(COMMIT, "m.gguf", "n.gguf"))
    foreseen = plan(record)
    assert foreseen.freed == 2000 and len(foreseen.deleted) == 4 and not foreseen.kept
    assert all(path.exists() for path in foreseen.deleted)
    assert remove(record) == foreseen
    assert not hub.folder("org/model").exists()
    assert not [one for one in Registry().all() if one.name == "a"]
    with pytest.raises(NotFoundError):
        remove(record)


def test_what_another_model_uses_stays() -> None:
    files = snapshot(COMMIT, "m.gguf", "n.gguf")
    record, _other = published("a", *files), published("b", files[0])
    done = remove(record)
    assert done.freed == 1000 and "b" in done.kept[0][1]
    assert files[0].exists() and not files[1].exists()
    assert remove(Registry().find("b")).freed == 1000
    assert not hub.folder("org/model").exists()


def test_the_second_name_of_a_model_keeps_its_files() -> None:
    files = snapshot(COMMIT, "m.gguf")
    record = published("a", *files)
    Registry().copy(record, "b")
    assert remove(record).freed == 0 and files[0].exists()
    assert plan(Registry().find("b"), gone=["a"]).freed == 1000
    assert remove(Registry().find("b")).freed == 1000 and not files[0].exists()


def test_what_another_snapshot_uses_stays() -> None:
    (old,) = snapshot(COMMIT, "m.gguf")
    (new,) = snapshot(LATER, "m.gguf")
    done = remove(published("a", old))
    assert done.freed == 0 and LATER in done.kept[0][1]
    assert not old.exists() and new.read_bytes() == b"x" * 1000
    assert (hub.folder("org/model") / "refs" / "main").read_text() == LATER


@pytest.mark.parametrize("origin", ["added", "adopted"])
def test_what_was_only_shown_stays(origin: str) -> None:
    files = snapshot(COMMIT, "m.gguf")
    done = remove(published("a", *files, origin=origin))
    assert done.freed == 0 and not done.deleted and files[0].exists()


def test_a_file_outside_stays_whatever_the_record_says(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"x")
    assert remove(published("a", file)).deleted == () and file.exists()


def test_products_and_downloads_go() -> None:
    file = paths.models() / "products" / "mine" / "m.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(500))
    done = remove(published("mine", file, source="base@merged", origin="made"))
    assert done.freed == 500 and not file.parent.exists() and paths.models().exists()


def test_a_second_link_to_the_file_means_nothing_is_freed() -> None:
    file = paths.models() / "downloads" / "m.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(500))
    os.link(file, file.with_name("n.gguf"))
    assert remove(published("mine", file, source="https://x/m.gguf")).freed == 0


def test_what_a_damaged_record_names_stays() -> None:
    files = snapshot(COMMIT, "m.gguf")
    record = published("a", *files)
    published("b", *files)
    broken = Registry().folder / "b@.json"
    broken.write_text(broken.read_text()[:-3])
    assert "damaged" in remove(record).kept[0][1] and files[0].exists()


def test_the_embedded_model_is_refused() -> None:
    for attempt in (plan, remove):
        with pytest.raises(UsageError):
            attempt(Registry().find("vigogneau"))
    other = Registry().copy(Registry().find("vigogneau"), "guide")
    assert remove(other).deleted == ()
    assert other.path.exists()


def test_what_was_here_before_a_pull_stays_marked() -> None:
    files = snapshot(COMMIT, "m.gguf")
    adopted = published("a", *files, origin="adopted")
    assert Registry().publish(replace(adopted, origin="")).origin == "adopted"
    assert not remove(Registry().find("a")).deleted


def test_a_damaged_record_is_kept_beside_its_successor() -> None:
    registry = Registry()
    registry.folder.mkdir(parents=True)
    (registry.folder / "a@.json").write_text("{ my edit")
    published("a", *snapshot(COMMIT, "m.gguf"))
    assert Registry().find("a").size == 1000
    assert (registry.folder / "a@.json.damaged").read_text() == "{ my edit"


def test_a_model_whose_file_is_gone_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        Registry().publish(Record("a", "gguf", files=(File(tmp_path / "gone.gguf", 1),)))


def _compete(home: str, models: str, done: "multiprocessing.Queue[str]") -> None:
    os.environ["VIGTUI_HOME"], os.environ["HF_HOME"] = home, models
    try:
        remove(Registry().find("a"))
        done.put("removed")
    except NotFoundError:
        done.put("gone")


def test_of_two_processes_one_removes(home: Path) -> None:
    published("a", *snapshot(COMMIT, "m.gguf"))
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    arguments = (str(home), os.environ["HF_HOME"], done)
    workers = [context.Process(target=_compete, args=arguments) for _n in range(3)]
    for worker in workers:
        worker.start()
    results = sorted(done.get(timeout=60) for _worker in workers)
    for worker in workers:
        worker.join()
    assert results == ["gone", "gone", "removed"]


def test_names_and_use(tmp_path: Path) -> None:
    convert(tiny.folder(tmp_path / "hf"), tmp_path / "a.gguf", "f16")
    registry = Registry()
    added = registry.add(tmp_path / "a.gguf")
    second = registry.copy(added, "b:x")
    assert (second.ref, second.files) == ("b:x", added.files)
    with pytest.raises(UsageError):
        registry.copy(added, "b:x")
    with pytest.raises(UsageError):
        registry.copy(added, "vigogneau")
    assert registry.used() == {}
    before = (registry.folder / "b@x.json").read_bytes()
    registry.use(second)
    registry.use(registry.find("vigogneau"))
    registry.use(Record("unknown", "gguf"))
    assert set(registry.used()) == {"b:x", "vigogneau"}
    assert (registry.folder / "b@x.json").read_bytes() == before
    registry.remove(second)
    assert set(registry.used()) == {"vigogneau"}
