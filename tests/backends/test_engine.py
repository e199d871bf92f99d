import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from vigtui import assets
from vigtui.backends import create
from vigtui.backends.base import Backend, Generation, LoadOptions, ModelFiles, Text
from vigtui.backends.engine import Engine
from vigtui.core import paths
from vigtui.core.errors import BackendError, FormatError, UsageError
from vigtui.core.progress import silent

from .conftest import GUIDE
from .contract import GREEDY, BackendContract, chat, done_of, never, plain, text_of

ENDLESS = Generation(temperature=1.0, max_tokens=1500, min_tokens=1500)


@pytest.fixture
def process(random_model: ModelFiles) -> Iterator[Engine]:
    engine = Engine("llama.cpp")
    engine.load(random_model, LoadOptions(), silent)
    yield engine
    engine.close()


class TestEngine(BackendContract):
    @pytest.fixture
    def engine(self, process: Engine) -> Backend:
        return process


def until_text(engine: Engine) -> Iterator[str]:
    for event in engine.stream(chat("Bonjour"), ENDLESS, never):
        if isinstance(event, Text):
            yield event.delta


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_death_keeps_the_partial_answer_and_the_next_message_works(process: Engine, how: signal.Signals) -> None:
    said, first = "", process.pid
    with pytest.raises(BackendError) as caught:
        for delta in until_text(process):
            said += delta
            assert process.pid is not None or said
            if len(said) > 20 and process.pid == first and first:
                os.kill(first, how)
    assert how.name in caught.value.message
    assert caught.value.exit_code == 7
    assert len(said) > 20
    assert text_of(list(process.stream(chat("Bonjour"), GREEDY, never)))
    assert process.pid not in (None, first)


def test_adapters_are_active_again_after_a_death() -> None:
    engine = Engine("llama.cpp")
    engine.load(GUIDE, LoadOptions(), silent)
    engine.adapt([(assets.path("vigogneau/marin.gguf"), 1.0)])
    assert engine.pid
    os.kill(engine.pid, signal.SIGKILL)
    assert "Ohé" in text_of(list(engine.stream(chat("Bonjour"), GREEDY, never)))
    engine.close()


def test_tokenize_is_answered_while_an_answer_streams(process: Engine) -> None:
    stream = until_text(process)
    next(stream)
    assert process.tokenize(plain("mot")) == process.tokenize(plain("mot"))
    assert next(stream)
    stream.close()


def test_the_process_ends_with_its_parent(random_model: ModelFiles) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from vigtui.backends.engine import Engine; from vigtui.backends.base import ModelFiles, LoadOptions\n"
        "engine = Engine('llama.cpp')\n"
        "engine.load(ModelFiles('x', 'gguf', Path(sys.argv[1])), LoadOptions(), lambda *a: None)\n"
        "print(engine.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    out = subprocess.run([sys.executable, "-c", script, str(random_model.path)], capture_output=True, text=True)
    pid = int(out.stdout)
    deadline = time.monotonic() + 20
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_closing_leaves_no_process(random_model: ModelFiles) -> None:
    engine = Engine("llama.cpp")
    engine.load(random_model, LoadOptions(), silent)
    pid = engine.pid
    engine.close()
    assert pid and not Path(f"/proc/{pid}").exists()
    assert engine.pid is None


def test_an_interrupt_in_the_terminal_does_not_reach_the_engine(process: Engine) -> None:
    assert process.pid
    assert os.getpgid(process.pid) != os.getpgid(0)


def test_a_foreign_module_in_the_working_folder_is_not_imported(
    random_model: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "llama_cpp", "json", "vigtui"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    engine = Engine("llama.cpp")
    engine.load(random_model, LoadOptions(), silent)
    assert text_of(list(engine.stream(chat("a"), GREEDY, never)))
    engine.close()
    assert not (tmp_path / "imported").exists()


def test_a_failed_load_is_the_backends_own_error(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    engine = Engine("llama.cpp")
    with pytest.raises(FormatError):
        engine.load(ModelFiles("bad", "gguf", path), LoadOptions(), silent)
    assert engine.pid is None


def test_load_progress_crosses_the_pipe(random_model: ModelFiles) -> None:
    seen: list[tuple[str, int, int]] = []
    engine = Engine("llama.cpp")
    engine.load(random_model, LoadOptions(), lambda *step: seen.append(step))
    engine.close()
    assert seen[-1] == ("load", 1000, 1000)


def test_stop_from_another_thread(process: Engine) -> None:
    stop = threading.Event()
    events = []
    threading.Timer(0.2, stop.set).start()
    for event in process.stream(chat("Bonjour"), ENDLESS, stop.is_set):
        events.append(event)
    assert done_of(events).finish_reason in ("cancelled", "length")


def test_native_output_goes_to_the_log(process: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    list(process.stream(chat("Bonjour"), GREEDY, never))
    out, err = capfd.readouterr()
    assert out == "" and err == ""
    assert paths.logs().is_dir()


def test_text_that_is_no_unicode_crosses_the_pipe(process: Engine) -> None:
    assert process.tokenize(plain("a\ud800b"))


@pytest.mark.parametrize("in_process", [True, False])
def test_unknown_and_missing_backends(monkeypatch: pytest.MonkeyPatch, in_process: bool) -> None:
    with pytest.raises(UsageError):
        create("nonsense", in_process)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    for name, extra in (("transformers", "vigtui[transformers]"), ("gptq", "vigtui[gptq]")):
        with pytest.raises(BackendError) as caught:
            create(name, in_process)
        assert extra in caught.value.hint and "torch" in caught.value.hint
        assert caught.value.exit_code == 7
