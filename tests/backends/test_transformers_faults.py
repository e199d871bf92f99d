import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from vigtui.backends.base import Beams, Event, Generation, Text
from vigtui.backends.engine import Engine
from vigtui.backends.transformers import TransformersBackend
from vigtui.core.errors import BackendError

from .. import tiny
from .contract import GREEDY, chat, done_of, never, plain, text_of
from .folders import FREE, MARIN, changed, loaded
from .folders import noise as noise
from .folders import process as process

SHORT = """
import resource, sys
from pathlib import Path
import torch
from vigtui.backends.base import Generation, LoadOptions, ModelFiles, Prompt, Text
from vigtui.backends.transformers import TransformersBackend
from vigtui.core.errors import BackendError

engine = TransformersBackend()
engine.load(ModelFiles("m", "safetensors", Path(sys.argv[1])), LoadOptions(threads=1), lambda *_: None)
prompt, said, hint, ballast = Prompt((("a", True),)), "", "", []

def fill():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
    for size in (1 << 24, 1 << 20, 1 << 16):
        try:
            while True:
                ballast.append(torch.empty(size, dtype=torch.uint8))
        except RuntimeError:
            pass

hot = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=1900, min_tokens=1900)
try:
    for event in engine.stream(prompt, hot, lambda: False):
        if isinstance(event, Text):
            said += event.delta
            if len(said) > 20 and not ballast:
                fill()
except BackendError as error:
    hint = error.hint
ballast.clear()
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
short = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=8)
again = "".join(e.delta for e in engine.stream(prompt, short, lambda: False) if isinstance(e, Text))
print(len(said), said.startswith(again), "--ctx" in hint)
"""


def test_the_end_of_memory_keeps_the_partial_answer(tmp_path: Path) -> None:
    model = tiny.write_llama(tmp_path / "hf", width=256, heads=4, kv_heads=4, context=2048)
    out = subprocess.run([sys.executable, "-c", SHORT, str(model)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-2000:]
    length, same, hinted = out.stdout.split()[-3:]
    assert int(length) > 20 and same == hinted == "True"


@pytest.mark.parametrize("beams", [1, 3])
def test_a_gpu_without_memory_is_a_sentence(
    noise: TransformersBackend, monkeypatch: pytest.MonkeyPatch, beams: int
) -> None:
    import torch

    model, calls = noise._runner.model, []
    whole, wanted = model.forward, dataclasses.replace(FREE, num_beams=beams)
    said = text_of(list(noise.stream(plain("a"), wanted, never)))

    def forward(**given: object) -> object:
        calls.append(given)
        if len(calls) == 12:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(**given)

    events: list[Event] = []
    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", forward)
        with pytest.raises(BackendError) as caught:
            for event in noise.stream(plain("a"), wanted, never):
                events.append(event)
    assert "--ctx" in caught.value.hint and caught.value.exit_code == 7
    assert any(isinstance(event, Text | Beams) for event in events) and said.startswith(text_of(events))
    again = list(noise.stream(plain("a"), wanted, never))
    assert text_of(again) == said and done_of(again).cached_tokens == 0


def test_a_death_keeps_the_partial_answer_and_the_next_message_works(process: Engine) -> None:
    process.adapt([(MARIN, 1.0)])
    said, first = "", process.pid
    endless = dataclasses.replace(FREE, max_tokens=900, min_tokens=900)
    with pytest.raises(BackendError) as caught:
        for event in process.stream(chat("Bonjour"), endless, never):
            said += event.delta if isinstance(event, Text) else ""
            if len(said) > 20 and first and process.pid == first:
                os.kill(first, signal.SIGKILL)
    assert "SIGKILL" in caught.value.message and len(said) > 20
    assert "Ohé" in text_of(list(process.stream(chat("Bonjour"), GREEDY, never)))
    process.adapt([])


def test_beams_cross_the_pipe(process: Engine) -> None:
    events = list(process.stream(chat("Bonjour"), dataclasses.replace(FREE, num_beams=3, max_tokens=20), never))
    beams = [event for event in events if isinstance(event, Beams)]
    assert len(beams) > 10 and all(len(event.candidates) >= 1 for event in beams)
    assert beams[-1].candidates[0][0] == text_of(events)


def test_values_that_are_no_numbers_are_a_sentence(random_hf: Path, tmp_path: Path) -> None:
    folder = changed(random_hf, tmp_path / "nan")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][:] = np.nan
    save_file(tensors, folder / "model.safetensors")
    engine = loaded(folder)
    for wanted in (FREE, Generation(temperature=1.0), Generation(num_beams=2)):
        with pytest.raises(BackendError) as caught:
            list(engine.stream(plain("a"), wanted, never))
        assert "--dtype" in caught.value.hint
    engine.close()
