"""Pulling while things break: the network, the disk, the process, and two processes at once."""

import functools
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from vigtui.core import paths
from vigtui.core.errors import CapacityError, FormatError, NetworkError, UsageError, VigtuiError
from vigtui.registry import hub as client
from vigtui.registry import pull, transfer
from vigtui.registry.order import prepare
from vigtui.registry.store import Registry
from vigtui.registry.unfinished import discard, partial

from ..hub import Hub
from . import build

MODEL = build.gguf(600_000)
SHA = hashlib.sha256(MODEL).hexdigest()
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without their waiting, where the server asks for none."""
    monkeypatch.setattr(transfer, "_delay", lambda refusal, _tries: getattr(refusal, "after", None) or 0.0)


def get(reference: str):
    return pull.fetch(prepare(reference))


class Zygote:
    """Starts pulls in processes of their own."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.registry.zygote"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self._line() == "ready"

    def start(self, reference: str) -> int:
        assert self.process.stdin
        self.process.stdin.write(reference + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def end(self) -> int:
        return int(self._line())

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def close(self) -> str:
        assert self.process.stdin and self.process.stderr
        self.process.stdin.close()
        said = self.process.stderr.read()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()
        return said


@pytest.fixture
def zygote(hub: Hub) -> Iterator[Zygote]:
    running = Zygote()
    yield running
    running.close()


def valid() -> None:
    """The registry has no damaged record and lists no model without its files."""
    registry = Registry()
    for record in registry.all():
        assert all(file.path.is_file() and file.path.stat().st_size == file.size for file in record.files)
    assert registry.damaged == []


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_random_points_it_stays_valid_and_goes_on(hub: Hub, zygote: Zygote, seed: int) -> None:
    """Each seed kills ten pulls: fifty in all. Those that had ended before their kill do not count."""
    hub.fault("/cdn/", rate=12e6)
    chance, number, killed = random.Random(seed), 0, 0
    while killed < 10:
        number += 1
        files = {f"m.Q4_K_M-0000{n}-of-00002.gguf": build.gguf(600_000, number, n - 1, 2) for n in (1, 2)}
        hub.add(f"org/m{number}", files)
        name, size = f"org--m{number}", sum(map(len, files.values()))
        events = hub.events
        pid = zygote.start(f"org/m{number}")
        hub.wait_events(events + chance.randrange(1, 32), until=functools.partial(_dead, pid))
        with suppress(ProcessLookupError):  # it had ended
            os.kill(pid, signal.SIGKILL)
        killed += zygote.end() == -signal.SIGKILL
        valid()
        before, kept = len(hub.requests), _kept(f"models--org--m{number}")
        zygote.start(f"org/m{number}")
        assert zygote.end() == 0
        record = Registry().find(f"m{number}")
        assert [file.sha256 for file in record.files] == [hashlib.sha256(data).hexdigest() for data in files.values()]
        assert [file.path.read_bytes() for file in record.files] == list(files.values())
        assert sum(_asked(request.range) for request in hub.requests[before:] if name in request.path) == size - kept
        valid()
    assert not list(client.cache().glob("**/*.vigtui"))
    assert partial() == []


def _kept(folder: str) -> int:
    """Bytes that a killed pull left: whole files and parts."""
    return sum(file.stat().st_size for file in (client.cache() / folder / "blobs").glob("*"))


def _asked(range: str) -> int:
    """Bytes that a Range header asks for."""
    start, _dash, end = range.removeprefix("bytes=").partition("-")
    return int(end) - int(start) + 1 if end else 0


def _dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_kill_costs_at_most_sixteen_mebibytes(hub: Hub, zygote: Zygote) -> None:
    size = 48 << 20
    hub.add("org/big", {"m.Q8_0.gguf": build.gguf(size)})
    pid = zygote.start("org/big")
    hub.wait_for("/cdn/", size // 2)
    os.kill(pid, signal.SIGKILL)
    zygote.end()
    zygote.start("org/big")
    assert zygote.end() == 0
    assert Registry().find("big").files[0].sha256 == hashlib.sha256(build.gguf(size)).hexdigest()
    assert hub.bytes_of("/cdn/") <= len(build.gguf(size)) + (16 << 20)


def test_two_processes_fetch_one_file_once(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    hub.fault("/cdn/", rate=3e6)
    first, second = Zygote(), Zygote()
    first.start("org/m")
    hub.wait_for("/cdn/", 100_000)
    second.start("org/m")
    assert (first.end(), second.end()) == (0, 0)
    assert (first.close(), second.close()) == ("", "")
    assert hub.bytes_of("/cdn/") == len(MODEL)
    assert Registry().find("m").files[0].sha256 == SHA


def test_the_second_takes_over_when_the_first_dies(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    hub.fault("/cdn/", stall_after=200_000, times=1)
    first, second = Zygote(), Zygote()
    pid = first.start("org/m")
    hub.wait_for("/cdn/", 200_000)
    second.start("org/m")
    os.kill(pid, signal.SIGKILL)
    assert second.end() == 0
    first.close()
    second.close()
    assert Registry().find("m").path.read_bytes() == MODEL


@pytest.mark.parametrize(
    "faults",
    [
        [{"drop_after": 150_000, "times": 1}],
        [{"drop_after": 100, "times": 1}, {"drop_after": 100_000, "times": 1}, {"drop_after": 500_000, "times": 1}],
        [{"status": 503, "times": 3}],
        [{"status": 429, "retry_after": 0, "times": 2}],
        [{"status": 403, "times": 1}],
        [{"drop_after": 150_000, "times": 1}, {"whole": True, "times": 1}],
    ],
    ids=["dropped", "dropped thrice", "503", "429", "an address that ran out", "ranges ignored"],
)
def test_what_passes_is_overcome(hub: Hub, faults: list[dict[str, int]]) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    for fault in faults:
        hub.fault("/cdn/", **fault)
    assert get("org/m").files[0].sha256 == SHA


def test_metadata_that_falter_are_asked_again(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    hub.fault("/resolve/", status=502, times=2, methods=("HEAD",))
    assert get("org/m").files[0].sha256 == SHA


def test_a_stall_ends_and_the_rest_comes(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    hub.fault("/cdn/", stall_after=300_000, times=1)
    assert get("org/m").files[0].sha256 == SHA
    assert [request.range for request in hub.asked("GET", "/cdn/")][1].startswith("bytes=300000-")


def test_it_gives_up_after_a_bounded_number_of_tries(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    hub.fault("/cdn/", status=503)
    with pytest.raises(NetworkError, match="503"):
        get("org/m")
    assert len(list(hub.asked("GET", "/cdn/"))) == transfer.TRIES
    assert prepare("org/m").missing == len(MODEL)


@pytest.mark.parametrize("name", ["m.Q4_K_M.gguf", "config.json"])
def test_wrong_bytes_are_discarded(hub: Hub, name: str) -> None:
    files = {**build.transformers(), **({"m.Q4_K_M.gguf": MODEL} if name.endswith("gguf") else {})}
    hub.add("org/m", files)
    hub.fault(name, corrupt_at=3, times=1)
    with pytest.raises(FormatError, match="announced"):
        get("org/m")
    assert not list(client.cache().glob("**/*.vigtui"))
    assert not [one for one in Registry().all() if one.source.startswith("org/m")]
    assert get("org/m").source.startswith("org/m@")


def test_a_part_that_was_damaged_on_disk_is_discarded(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    part = client.folder("org/m") / "blobs" / f"{SHA}.vigtui"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    with pytest.raises(FormatError, match="announced"):
        get("org/m")
    assert not part.exists()
    part.write_bytes(MODEL + b"too long")
    assert get("org/m").files[0].sha256 == SHA


def test_a_damaged_file_of_another_tool_is_named_not_deleted(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    blob = client.folder("org/m") / "blobs" / SHA
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(len(MODEL)))
    with pytest.raises(FormatError, match=SHA):
        get("org/m")
    assert blob.exists()


@pytest.mark.parametrize("etag", ["../../../evil", "/tmp/evil", "", "a/b", "."])
def test_an_etag_never_becomes_a_path(hub: Hub, etag: str) -> None:
    commit = hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    held = hub.repositories["org/m"].commits[commit]
    order = prepare("org/m")
    held["m.Q4_K_M.gguf"] = replace(held["m.Q4_K_M.gguf"], sha256=etag or None, oid=etag)
    with pytest.raises(VigtuiError):
        pull.fetch(order)
    assert not list(client.cache().parent.parent.rglob("*evil*"))


@pytest.mark.parametrize("name", ["../evil.Q4_K_M.gguf", "/evil.gguf", "a\x1b[2J.gguf", "a\\..\\evil.gguf"])
def test_a_file_s_name_never_leaves_the_folder(hub: Hub, name: str) -> None:
    hub.add("org/m", {name: MODEL})
    with pytest.raises(FormatError):
        prepare("org/m")
    with pytest.raises(VigtuiError):
        prepare(f"hf://org/m:{name}")


def test_a_full_disk_keeps_the_part(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    order, (_soft, hard) = prepare("org/m"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # the kernel refuses to write on, as a full disk does
    try:
        with pytest.raises(CapacityError, match="disk is full"):
            pull.fetch(order)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [pulled.done for pulled in partial()] == [200_000]
    assert get("org/m").files[0].sha256 == SHA
    [*_earlier, last] = hub.asked("GET", "/cdn/")
    assert last.range == f"bytes=200000-{len(MODEL) - 1}"


def test_an_address_that_changed_starts_over(hub: Hub) -> None:
    url = f"{hub.cdn}/cdn/org--m/{hub.add('org/m', {'m.gguf': MODEL})}/m.gguf"
    with pytest.raises(transfer.Paused):
        pull.fetch(prepare(url), stop=lambda: True)
    assert prepare(url).missing < len(MODEL)
    other = build.gguf(600_000, 5)
    [commit] = hub.repositories["org/m"].commits
    hub.repositories["org/m"].commits[commit] = hub.repositories["org/m"].commits[hub.add("org/m", {"m.gguf": other})]
    assert prepare(url).missing == len(other)
    assert get(url).path.read_bytes() == other


def test_unfinished_pulls_are_listed_and_given_up(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    with pytest.raises(transfer.Paused):
        pull.fetch(prepare("org/m"), stop=lambda: True)
    [found] = partial()
    assert (found.reference, found.ref, found.size) == ("org/m", "m:Q4_K_M", len(MODEL))
    assert 0 < found.done < found.size
    done = found.done
    assert discard(found) == done
    assert partial() == [] and not list(client.cache().glob("**/*.vigtui"))


def test_a_part_without_its_pull_is_listed_too(hub: Hub) -> None:
    part = client.folder("org/m") / "blobs" / "abc.vigtui"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"1234")
    [found] = partial()
    assert (found.reference, found.done) == ("org/m", 4)
    assert discard(found) == 4
    assert not part.exists()


def test_giving_up_frees_whole_files_that_nothing_else_uses(hub: Hub) -> None:
    files = build.transformers()
    hub.add("org/m", files)
    hub.fault("model.safetensors", status=404)
    with pytest.raises(VigtuiError):
        get("org/m")
    [found] = partial()
    assert 0 < found.done < found.size
    done = found.done
    assert discard(found) == done
    assert not list((client.folder("org/m") / "blobs").iterdir())


def test_giving_up_never_touches_another_tool_s_files(hub: Hub) -> None:
    from huggingface_hub import hf_hub_download

    files = build.transformers()
    hub.add("org/m", {"model.safetensors": files["model.safetensors"]})
    theirs = Path(hf_hub_download("org/m", "model.safetensors"))
    hub.add("org/m", files)
    steps: list[pull.Step] = []
    with pytest.raises(transfer.Paused):
        pull.fetch(prepare("org/m"), steps.append, stop=lambda: steps[-1].file == "model.safetensors")
    [found] = partial()
    assert discard(found) > 0
    assert theirs.read_bytes() == files["model.safetensors"]


def test_giving_up_never_touches_a_model_s_files(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    record = get("org/m")
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL, "n.Q8_0.gguf": build.gguf(8000)})
    with pytest.raises(transfer.Paused):
        pull.fetch(prepare("org/m:Q8_0"), stop=lambda: True)
    for found in partial():
        discard(found)
    assert record.path.read_bytes() == MODEL


def test_a_running_pull_cannot_be_given_up(hub: Hub, zygote: Zygote) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    hub.fault("/cdn/", rate=600_000)
    zygote.start("org/m")
    hub.wait_for("/cdn/", 50_000)
    [found] = partial()
    with pytest.raises(UsageError, match="at this moment"):
        discard(found)
    assert zygote.end() == 0


def test_a_damaged_note_is_dropped(hub: Hub) -> None:
    note = paths.models() / "pulls" / "x@.json"
    note.parent.mkdir(parents=True)
    note.write_text("{")
    assert partial() == []
    assert not note.exists()
