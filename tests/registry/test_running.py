"""Engines that run are listed with their memory; those that ended, crashed or lie are not."""

import json
import os
import signal
from pathlib import Path

import pytest
from vigtui.backends.base import LoadOptions, Prompt
from vigtui.core import paths
from vigtui.registry import open as opening
from vigtui.registry.running import engines
from vigtui.registry.store import Registry


@pytest.fixture
def engine():
    backend = opening.open(Registry().find("vigogneau"), LoadOptions(threads=1))
    yield backend
    backend.close()


def test_an_engine_is_listed_while_it_runs(engine) -> None:
    (one,) = engines()
    assert (one.model, one.backend, one.pid, one.owner) == ("vigogneau", "llama.cpp", engine.pid, os.getpid())
    assert one.resident and one.resident > 5 << 20
    assert one.context == engine.info.context
    assert "vigogneau" in Registry().used()
    engine.close()
    assert engines() == []
    assert list((paths.cache() / "engines").iterdir()) == []


def test_an_engine_that_crashed_and_came_back(engine) -> None:
    first = engine.pid
    os.kill(first, signal.SIGKILL)
    engine._process.wait()
    assert engines() == []
    engine.tokenize(Prompt((("x", True),)))
    assert engine.pid != first


def test_files_that_lie_are_thrown_away(engine) -> None:
    folder = paths.cache() / "engines"
    (noted,) = folder.glob("*.json")
    true = json.loads(noted.read_text())
    for n, lie in enumerate(({"start": "1"}, {"pid": 2**30}, {"pid": "x"}, {"surprise": 1}, {"start": ""})):
        (folder / f"0-{n}.json").write_text(json.dumps(true | lie))
    (folder / "0-9.json").write_text("{")
    assert [one.pid for one in engines() if one.start == true["start"]] == [engine.pid]
    assert (folder / "0-9.json").exists() is False


def test_in_this_process(home: Path) -> None:
    backend = opening.open(Registry().find("vigogneau"), LoadOptions(threads=1), in_process=True)
    try:
        assert [one.pid for one in engines()] == [os.getpid()]
    finally:
        backend.close()
