"""Engines that die or run out of memory, while a prompt is read and while an answer is written."""

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from vigtui.backends.base import Generation, LoadOptions, ModelFiles, Prefill, Text
from vigtui.backends.engine import Engine
from vigtui.core.errors import BackendError, VigtuiError
from vigtui.core.progress import silent

from ..tiny import write_gguf
from .contract import GREEDY, done_of, never, plain, text_of

STUCK = """
import sys, time
from vigtui.backends import child

class Stuck:
    def pieces(self, tokens):
        time.sleep(1000)

child.backend_class, child._GRACE, sys.argv = lambda name: Stuck, 0.2, ["child", "stuck"]
child.main()
"""
SLOW = {"layers": 12, "width": 384, "heads": 6, "kv_heads": 6, "ffn": 1536}
"""A shape that is still reading when the signal comes."""
ENDLESS = replace(GREEDY, max_tokens=1900, min_tokens=1900)
PROMPTS = {"prefill": plain("mot " * 900), "decode": plain("Bonjour")}
LIMITED = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limit of another process is Linux's")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFiles]:
    """The same model for either backend."""
    path = write_gguf(tmp_path_factory.mktemp("slow") / "slow.gguf", **SLOW)
    folder = path.with_suffix(".hf")
    return {"llama.cpp": ModelFiles("slow", "gguf", path), "transformers": ModelFiles("slow", "safetensors", folder)}


@pytest.fixture(scope="module")
def engines(files: dict[str, ModelFiles]) -> Iterator[dict[str, Engine]]:
    """An engine of either backend; each test leaves it able to answer."""
    started = {name: Engine(name) for name in files}
    yield started
    for engine in started.values():
        engine.close()


def ready(engines: dict[str, Engine], files: dict[str, ModelFiles], name: str, anew: bool = False) -> Engine:
    engine = engines[name]
    if anew or engine.pid is None:
        engine.load(files[name], LoadOptions(threads=1), silent)
    return engine


def limit(pid: int, size: int) -> None:
    """Let process `pid` map no more memory once it has `size` bytes; what it has it keeps."""
    resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def waited(work: Callable[[], None]) -> VigtuiError | None:
    """Do `work` in another thread and give its error; fail when it does not end."""
    errors: list[VigtuiError] = []

    def guarded() -> None:
        try:
            work()
        except VigtuiError as error:
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    return errors[0] if errors else None


def struck(
    engine: Engine, when: str, strike: Callable[[int], None], generation: Generation = ENDLESS
) -> tuple[str, VigtuiError]:
    """Answer until `strike(pid)`, called as soon as the engine is at `when`, ends it; give what was said and why."""
    said, done = "", False
    with pytest.raises(BackendError) as caught:
        for event in engine.stream(PROMPTS[when], generation, never):
            said += event.delta if isinstance(event, Text) else ""
            reading = isinstance(event, Prefill) and event.done < event.total
            if not done and (reading if when == "prefill" else len(said) > 20):
                done = True
                strike(engine.pid or 0)
    assert done and bool(said) == (when == "decode")
    return said, caught.value


@pytest.mark.parametrize(
    ("name", "when", "how"),
    [
        ("llama.cpp", "prefill", signal.SIGKILL),
        ("llama.cpp", "prefill", signal.SIGSEGV),
        ("transformers", "prefill", signal.SIGKILL),
        ("transformers", "decode", signal.SIGSEGV),
    ],
)
def test_a_death_costs_one_answer_and_leaves_nothing(
    engines: dict[str, Engine], files: dict[str, ModelFiles], name: str, when: str, how: signal.Signals
) -> None:
    engine = ready(engines, files, name)
    first = engine.pid
    _said, error = struck(engine, when, lambda pid: os.kill(pid, how))
    assert how.name in error.message and ("memory" in error.hint) == (how is signal.SIGKILL)
    assert not Path(f"/proc/{first}").exists()  # not even a zombie
    assert text_of(list(engine.stream(PROMPTS["decode"], GREEDY, never)))
    assert engine.pid not in (None, first)


@LIMITED
@pytest.mark.parametrize(("when", "beams"), [("decode", 8), ("prefill", 1)])
def test_the_end_of_memory_costs_one_answer(
    engines: dict[str, Engine], files: dict[str, ModelFiles], when: str, beams: int
) -> None:
    engine = ready(engines, files, "transformers", anew=when == "decode")  # else what was freed is enough
    first = engine.pid
    assert first
    _said, error = struck(engine, when, lambda pid: limit(pid, 1 << 20), replace(ENDLESS, num_beams=beams))
    assert error.exit_code == 7 and "--ctx" in error.hint
    limit(first, resource.RLIM_INFINITY)
    assert text_of(list(engine.stream(PROMPTS["decode"], GREEDY, never)))
    assert engine.pid == first


@LIMITED
def test_llama_cpp_reads_without_more_memory_or_ends(engines: dict[str, Engine], files: dict[str, ModelFiles]) -> None:
    engine = ready(engines, files, "llama.cpp", anew=True)
    first, events = engine.pid, []
    assert first

    def read() -> None:
        for event in engine.stream(PROMPTS["prefill"], replace(ENDLESS, max_tokens=8, min_tokens=8), never):
            if not events:
                limit(first, 1 << 20)
            events.append(event)

    error = waited(read)
    assert error or done_of(events).completion_tokens == 8
    assert Path(f"/proc/{first}").exists() == (engine.pid == first)
    if engine.pid == first:
        limit(first, resource.RLIM_INFINITY)
    assert text_of(list(engine.stream(PROMPTS["decode"], GREEDY, never)))


@LIMITED
def test_llama_cpp_writes_on_without_more_memory(engines: dict[str, Engine], files: dict[str, ModelFiles]) -> None:
    engine = ready(engines, files, "llama.cpp", anew=True)
    whole = text_of(list(engine.stream(PROMPTS["decode"], replace(ENDLESS, max_tokens=60, min_tokens=60), never)))
    said = ""
    for event in engine.stream(PROMPTS["decode"], replace(ENDLESS, max_tokens=60, min_tokens=60), never):
        if not said and engine.pid:
            limit(engine.pid, 1 << 20)
        said += event.delta if isinstance(event, Text) else ""
    assert said == whole


@LIMITED
def test_a_request_that_does_not_fit_the_memory_ends_the_process_and_not_the_wait(
    engines: dict[str, Engine], files: dict[str, ModelFiles]
) -> None:
    engine = ready(engines, files, "llama.cpp")
    first = engine.pid
    assert first
    limit(first, 1 << 20)
    assert waited(lambda: engine.adapt([(Path("a" * (8 << 20)), 1.0)]))
    assert text_of(list(engine.stream(PROMPTS["decode"], GREEDY, never)))
    assert engine.pid not in (None, first)


def test_half_an_answer_is_none(files: dict[str, ModelFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nread line\nprintf \'{"id": 1, "resu\'\nexit 3\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    engine = Engine("llama.cpp")
    with pytest.raises(BackendError) as caught:
        engine.load(files["llama.cpp"], LoadOptions(), silent)
    assert "exit code 3" in caught.value.message


def test_an_engine_that_is_stuck_ends_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin
        process.stdin.write(b'{"id": 1, "op": "pieces", "tokens": []}\n')
        process.stdin.close()
        try:
            assert process.wait(60) == 1
        finally:
            process.kill()
