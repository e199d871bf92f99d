"""`rm`, `cp`, `adopt` and `ps`, as people and scripts use them."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from .conftest import Run


@pytest.fixture(autouse=True)
def other_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path / "llama.cpp"))


def cached(model: str) -> Path:
    """Put the file into the hub's cache as `hf download org/Model-GGUF` does."""
    digest = hashlib.sha256(Path(model).read_bytes()).hexdigest()
    repository = Path(os.environ["HF_HOME"]) / "hub" / "models--org--Model-GGUF"
    link = repository / "snapshots" / ("e" * 40) / "model.gguf"
    for folder in (repository / "blobs", repository / "refs", link.parent):
        folder.mkdir(parents=True)
    shutil.copy(model, repository / "blobs" / digest)
    link.symlink_to(f"../../blobs/{digest}")
    (repository / "refs" / "main").write_text("e" * 40)
    return link


def refs(run: Run) -> list[str]:
    return [one["ref"] for one in json.loads(run("list", "--json").stdout) if not one["ref"].startswith("vigogneau")]


def test_a_second_name_and_its_end(run: Run, tiny: str) -> None:
    assert run("add", tiny, "--name", "mine").returncode == 0
    done = run("cp", "mine", "other:x")
    assert (done.returncode, done.stderr) == (0, "") and "other:x" in done.stdout
    assert run("cp", "mine", "other:x").returncode == 2
    assert run("cp", "nothing", "x").returncode == 3
    assert refs(run) == ["mine:F32", "other:x"]
    assert "--" not in run("rm", "other", "--dry-run").stderr and refs(run) == ["mine:F32", "other:x"]
    told = json.loads(run("rm", "other", "mine", "-y", "--json").stdout)
    assert [one["ref"] for one in told] == ["other:x", "mine:F32"] and told[0]["freed"] == 0
    assert refs(run) == [] and Path(tiny).exists()


def test_rm_refuses_and_asks(run: Run, tiny: str, terminal: Callable[..., "pexpect.spawn[str]"]) -> None:
    assert run("rm", "nothing-such", "-y").returncode == 3
    embedded = run("rm", "vigogneau", "-y")
    assert embedded.returncode == 2 and "comes with vigtui" in embedded.stderr
    assert run("add", tiny, "--name", "mine").returncode == 0
    unasked = run("rm", "mine")
    assert unasked.returncode == 2 and "-y" in unasked.stderr
    assert run("rm", "mine", "nothing-such", "-y").returncode == 3 and refs(run) == ["mine:F32"]
    child = terminal("rm", "mine")
    child.expect("Remove mine:F32")
    child.sendline("n")
    child.expect(pexpect.EOF)
    assert refs(run) == ["mine:F32"]
    child = terminal("rm", "mine")
    child.expect("Remove mine:F32")
    child.sendline("y")
    child.expect("mine:F32 is gone")
    child.expect(pexpect.EOF)
    assert refs(run) == []


def test_the_default_falls_back_to_the_embedded_model(run: Run, tiny: str) -> None:
    assert run("add", tiny, "--name", "mine").returncode == 0
    assert run("default", "mine").returncode == 0
    assert "vigogneau" in run("rm", "mine", "-y").stderr
    assert run("default").stdout == "vigogneau\n"


def test_adopt_finds_what_the_hub_has_cached(run: Run, tiny: str) -> None:
    link = cached(tiny)
    assert "model-gguf:F32" in run("adopt", "--dry-run").stdout and refs(run) == []
    done = run("adopt")
    assert done.returncode == 0 and "model-gguf:F32" in done.stdout
    assert refs(run) == ["model-gguf:F32"]
    (told,) = json.loads(run("adopt", "--json").stdout)
    assert told["record"] is None and told["reason"]
    assert "org/Model-GGUF@" in run("show", "model-gguf").stdout
    assert "stays" in run("rm", "model-gguf", "-y").stdout
    assert link.exists()


def test_ps_shows_an_engine_of_another_process(run: Run, terminal: Callable[..., "pexpect.spawn[str]"]) -> None:
    assert "No engine" in run("ps").stdout
    chat = terminal("--plain", "--no-save")
    deadline = time.monotonic() + 60
    while not (found := json.loads(run("ps", "--json").stdout)) and time.monotonic() < deadline:
        assert chat.isalive()
    assert found[0]["model"] == "vigogneau" and found[0]["resident"] > 1 << 20
    assert found[0]["owner"] == chat.pid
    assert "vigogneau" in run("ps").stdout
    chat.sendeof()
    chat.expect(pexpect.EOF)
    assert json.loads(run("ps", "--json").stdout) == []


def test_list_tells_when_a_model_was_used(run: Run) -> None:
    def used() -> str | None:
        return json.loads(run("list", "--json").stdout)[0]["used"]

    assert used() is None
    assert run("-p", "Bonjour", "-n", "4").returncode == 0
    assert used() is not None


def test_unfinished_pulls_are_listed_apart(run: Run) -> None:
    part = Path(os.environ["HF_HOME"]) / "hub" / "models--org--m" / "blobs" / "0123.vigtui"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(700))
    assert "vigtui pull org/m" in run("list", "--partial").stdout
    assert refs(run) == []
    (found,) = json.loads(run("list", "--partial", "--json").stdout)
    assert (found["done"], found["ref"]) == (700, "org/m")
    assert "700 B" in run("rm", "org/m", "-y").stdout
    assert not part.exists()
    assert "No pull" in run("list", "--partial").stdout


@pytest.mark.parametrize("name", ["rm", "cp", "adopt", "ps", "list", "show"])
def test_help(run: Run, name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert run(name, "--help", LANG="fr_FR.UTF-8").returncode == 0


def test_show_explains_what_is_damaged(run: Run, tiny: str, tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    shutil.copy(tiny, file)
    assert run("add", str(file), "--name", "mine").returncode == 0
    file.write_bytes(file.read_bytes()[:-500])
    done = run("show", "mine")
    assert done.returncode == 0 and "cut short" in done.stderr and "mine:F32" in done.stdout
    file.unlink()
    assert "missing" in run("list").stdout
    assert "no file" in run("show", "mine").stderr
