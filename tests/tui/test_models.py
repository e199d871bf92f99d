"""`list`, `show`, `add` and `default`."""

import json
import shutil
from pathlib import Path

from .conftest import Run


def test_the_embedded_model_is_known_and_the_default(run: Run) -> None:
    found = json.loads(run("list", "--json").stdout)
    assert found[0]["ref"] == "vigogneau"
    assert [one["ref"] for one in found if one["default"]] == ["vigogneau"]
    assert run("default").stdout == "vigogneau\n"
    assert run("ls").stdout == run("list").stdout
    assert "vigogneau" in run("ls").stdout


def test_add_registers_a_file_where_it_lies(run: Run, tiny: str) -> None:
    done = run("add", tiny, "--name", "mine")
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = [one for one in json.loads(run("list", "--json").stdout) if one["name"] == "mine"]
    assert found["files"][0]["path"] == tiny
    assert found["size"] == Path(tiny).stat().st_size
    assert "mine" in run("list").stdout
    shown = json.loads(run("show", "mine", "--json").stdout)
    assert {name: value for name, value in found.items() if name != "default"}.items() <= shown.items()
    assert shown["types"] == {"F32": shown["tensors"]} and len(shown["files"][0]["sha256"]) == 64
    assert shown["memory"]["context"] == 2048 and shown["memory"]["fits_memory"]
    assert tiny in run("show", "mine").stdout and "tokens fit" in run("show", "mine").stdout
    assert run("-m", "min", "-p", "hello", "--backend", "echo").stdout == "hello\n"


def test_add_refuses(run: Run, tiny: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("no model")
    assert run("add", str(tmp_path / "none.gguf")).returncode == 3
    assert run("add", str(tmp_path / "text.txt")).returncode == 6
    assert run("add", tiny, "--name", "mine").returncode == 0
    shutil.copy(tiny, tmp_path / "other.gguf")
    clash = run("add", str(tmp_path / "other.gguf"), "--name", "mine")
    assert clash.returncode == 2
    assert "--name" in clash.stderr
    assert run("add", tiny, "--name", "../escape").returncode == 2


def test_show_a_path_that_is_not_registered(run: Run, tiny: str) -> None:
    found = json.loads(run("show", tiny, "--json").stdout)
    assert (found["kind"], found["context"], found["quantization"]) == ("gguf", 2048, "F32")
    assert not any(one["name"] == "tiny" for one in json.loads(run("list", "--json").stdout))


def test_default_is_kept_and_overridden(run: Run, tiny: str) -> None:
    assert run("add", tiny, "--name", "mine").returncode == 0
    assert run("default", "mine").returncode == 0
    assert run("default").stdout == "mine:F32\n"
    assert json.loads(run("-p", "x", "--backend", "echo", "--json").stdout)["model"]["name"] == "mine:F32"
    assert run("default", VIGTUI_MODEL="vigogneau").stdout == "vigogneau\n"
    assert run("default", "nothing-such").returncode == 3
    assert run("default").stdout == "mine:F32\n"


def test_a_path_may_be_the_default(run: Run, tiny: str) -> None:
    assert run("default", tiny).returncode == 0
    assert json.loads(run("-p", "x", "--backend", "echo", "--json").stdout)["model"]["name"] == "tiny:F32"


def test_a_damaged_record_is_named_and_the_others_are_listed(run: Run, tiny: str, home: Path) -> None:
    assert run("add", tiny, "--name", "mine").returncode == 0
    (home / "models" / "records" / "bad@.json").write_text("{")
    done = run("list")
    assert done.returncode == 0
    assert "mine" in done.stdout
    assert "bad@.json" in done.stderr
