import os
import subprocess
import sys
from pathlib import Path

import pytest
from vigtui.core.errors import UsageError
from vigtui.registry.convert import publish


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("name", ["it", "it [1] *"])
def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path: Path, dead: int, name: str) -> None:
    alive = {f".{name}.{os.getppid()}.tmp", f".{name}.x.tmp", f".{name}x.{dead}.tmp", f"{name}.{dead}.tmp"}
    for left in alive:
        (tmp_path / left).touch()
    (tmp_path / f".{name}.{dead}.tmp").mkdir()
    (tmp_path / f".{name}.{dead}.tmp" / "part").touch()
    with publish.file(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert (tmp_path / name).read_text() == "whole"
    (tmp_path / name).unlink()
    (tmp_path / f".{name}.{dead}.tmp").touch()
    with publish.folder(tmp_path / name) as temporary:
        (temporary / "part").write_text("whole")
    assert (tmp_path / name / "part").read_text() == "whole"
    assert {path.name for path in tmp_path.iterdir()} == {*alive, name}


def test_after_a_failure_the_old_file_stays_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(ZeroDivisionError), publish.file(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), publish.folder(tmp_path / "folder") as temporary:
        (temporary / "half").touch()
        raise ZeroDivisionError
    with pytest.raises(UsageError), publish.folder(tmp_path / "file"):
        raise AssertionError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]
