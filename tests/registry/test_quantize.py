import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from vigtui.backends import llama_native
from vigtui.backends.base import Generation, LoadOptions, ModelFiles, Prompt
from vigtui.backends.llama_cpp import LlamaCppBackend
from vigtui.core.errors import CapacityError, FormatError, NotFoundError, UsageError
from vigtui.core.progress import silent
from vigtui.registry.sniff import sniff
from vigtui.registry.workshop.ftype import TYPES, named
from vigtui.registry.workshop.quantize import quantize, size

from .. import tiny
from .forms import HF, MARIN, Q8_0, experts, kinds, split, spoilt
from .forms import f16 as f16
from .forms import small as small

FREE = [name for name, type in TYPES.items() if not type.needs_matrix]
LOW = [name for name, type in TYPES.items() if type.needs_matrix]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def answer(path: Path) -> str:
    engine = LlamaCppBackend()
    try:
        engine.load(ModelFiles("it", "gguf", path), LoadOptions(threads=1), silent)
        prompt = Prompt((("<|user|>: Bonjour\n<|assistant|>:", True),))
        events = engine.stream(prompt, Generation(temperature=0, max_tokens=24), lambda: False)
        return "".join(getattr(event, "delta", "") for event in events)
    finally:
        engine.close()


@pytest.mark.parametrize("name", FREE)
def test_every_type_loads_and_has_the_size_that_was_told(name: str, f16: Path, tmp_path: Path) -> None:
    done = quantize(f16, tmp_path / "it.gguf", name.lower(), threads=1)
    assert sniff(tmp_path / "it.gguf").quantization == name.removesuffix("_MOE")
    assert size(f16, name) == (tmp_path / "it.gguf").stat().st_size
    assert (done.fallbacks, done.tensors) == (0, 38)
    with tiny.load(tmp_path / "it.gguf") as model:
        assert abs(model.logits([1, 40, 41, 42])).max() < 1e4  # false for NaN too


def test_a_good_type_answers_like_its_source(f16: Path, tmp_path: Path) -> None:
    quantize(f16, tmp_path / "it.gguf", "Q6_K", threads=1)
    assert answer(tmp_path / "it.gguf") == answer(f16) != ""


@pytest.mark.parametrize("name", ["Q8_0", "Q4_K_M", "Q2_K", "IQ3_S"])
def test_the_bytes_are_those_of_the_library(name: str, f16: Path, tmp_path: Path) -> None:
    native = llama_native.bindings()
    settings = native.llama_model_quantize_default_params()
    settings.ftype = TYPES[name].number
    bare = tmp_path / "bare.gguf"
    assert native.llama_model_quantize(os.fsencode(f16), os.fsencode(bare), ctypes.byref(settings)) == 0
    quantize(f16, tmp_path / "ours.gguf", name, threads=2)
    assert digest(tmp_path / "ours.gguf") == digest(bare)


def test_names_are_those_that_people_use() -> None:
    assert [named(text) for text in ("q4_k", "Q5_K", " q3-k ", "iq4_nl", "mxfp4")] == [
        "Q4_K_M", "Q5_K_M", "Q3_K_M", "IQ4_NL", "MXFP4_MOE",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="Q4_K_M"):
        named("Q4_KM")
    with pytest.raises(UsageError, match="Choose one of: Q4_0"):
        named("zzz")


@pytest.mark.parametrize("name", LOW)
def test_few_bits_need_a_matrix(name: str, f16: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--calibration fr"):
        quantize(f16, tmp_path / "it.gguf", name)
    assert not list(tmp_path.iterdir())


def test_quantized_weights_are_refused_unless_it_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--allow-requantize"):
        quantize(Q8_0, tmp_path / "it.gguf", "Q4_K_M")
    assert not list(tmp_path.iterdir())
    quantize(Q8_0, tmp_path / "it.gguf", "Q4_K_M", threads=1, allow_requantize=True)
    assert sniff(tmp_path / "it.gguf").quantization == "Q4_K_M"


def test_the_source_is_never_the_target(f16: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    shutil.copy(f16, source)
    (tmp_path / "hard.gguf").hardlink_to(source)
    (tmp_path / "soft.gguf").symlink_to(source)
    (tmp_path / "folder").symlink_to(tmp_path)
    for name in ("source.gguf", "hard.gguf", "soft.gguf", "folder/source.gguf"):
        with pytest.raises(UsageError, match="the source itself"):
            quantize(source, tmp_path / name, "Q4_0")
    assert digest(source) == digest(f16)


def test_other_things_are_refused_before_the_library_sees_them(f16: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "it.gguf"
    cut, poor = tmp_path / "cut.gguf", tmp_path / "poor.gguf"
    cut.write_bytes(f16.read_bytes()[:-100])
    tiny.rewrite_gguf(f16, poor, lambda key, value: 0 if key == "llama.block_count" else value)
    with pytest.raises(FormatError, match="vigtui convert"):
        quantize(HF, target, "Q4_0")
    with pytest.raises(FormatError, match="no GGUF model"):
        quantize(MARIN, target, "Q4_0")
    with pytest.raises(FormatError, match="cut short"):
        quantize(cut, target, "Q4_0")
    with pytest.raises(FormatError, match="0 layers"):
        quantize(poor, target, "Q4_0")
    with pytest.raises(NotFoundError):
        quantize(tmp_path / "none.gguf", target, "Q4_0")
    assert not target.parent.exists()


def test_the_librarys_own_refusal_is_the_reason(f16: Path, tmp_path: Path) -> None:
    source = spoilt(f16, tmp_path / "nan.gguf", "blk.1.ffn_up.weight", float("nan"))
    with pytest.raises(FormatError, match=r"'blk\.1\.ffn_up\.weight' has invalid data"):
        quantize(source, tmp_path / "it.gguf", "Q4_0", threads=1)
    assert list(tmp_path.iterdir()) == [source]


def test_narrow_tensors_are_counted(small: Path, tmp_path: Path) -> None:
    done = quantize(small, tmp_path / "it.gguf", "Q4_K_M", threads=1)
    assert (done.fallbacks, done.tensors) == (15, 21)  # and the output, which takes Q8_0 of itself
    assert ["15 of 21" in notice for notice in done.notices] == [True]
    assert sum(kind in ("Q5_0", "Q8_0", "Q5_1") for kind in kinds(tmp_path / "it.gguf").values()) == 16
    assert size(small, "Q4_K_M") == (tmp_path / "it.gguf").stat().st_size


def test_the_output_tensor_can_be_left(small: Path, f16: Path, tmp_path: Path) -> None:
    left = quantize(small, tmp_path / "left.gguf", "Q4_0", threads=1, leave_output_tensor=True)
    assert kinds(tmp_path / "left.gguf")["output.weight"] == "F32"
    assert not left.notices
    assert size(small, "Q4_0", leave_output_tensor=True) == (tmp_path / "left.gguf").stat().st_size
    tied = quantize(f16, tmp_path / "tied.gguf", "Q4_0", threads=1, leave_output_tensor=True)
    assert ["--leave-output-tensor" in notice for notice in tied.notices] == [True]


def test_a_pure_type_is_one_type(f16: Path, tmp_path: Path) -> None:
    quantize(f16, tmp_path / "mixed.gguf", "Q4_K_M", threads=1)
    quantize(f16, tmp_path / "pure.gguf", "Q4_K_M", threads=1, pure=True)
    assert {"Q4_K", "Q6_K"} <= set(kinds(tmp_path / "mixed.gguf").values())
    assert set(kinds(tmp_path / "pure.gguf").values()) == {"Q4_K", "F32"}


def test_a_dense_model_is_told_that_mxfp4_is_for_experts(small: Path, tmp_path: Path) -> None:
    assert "Q8_0" in quantize(small, tmp_path / "it.gguf", "MXFP4", threads=1).notices[0]
    many = experts(small, tmp_path / "many.gguf")
    assert not quantize(many, tmp_path / "its.gguf", "MXFP4", threads=1).notices
    assert kinds(tmp_path / "its.gguf")["blk.0.ffn_up_exps.weight"] == "MXFP4"


def test_a_model_in_several_files_becomes_one(f16: Path, tmp_path: Path) -> None:
    first = split(f16, tmp_path / "parts", 10)
    assert len(sniff(first).files) == 4
    quantize(first, tmp_path / "it.gguf", "Q5_K_M", threads=1)
    quantize(f16, tmp_path / "whole.gguf", "Q5_K_M", threads=1)
    assert kinds(tmp_path / "it.gguf") == kinds(tmp_path / "whole.gguf")
    assert answer(tmp_path / "it.gguf") == answer(tmp_path / "whole.gguf")
    with pytest.raises(UsageError, match="the source itself"):
        quantize(first, first.with_name(first.name.replace("00001", "00002")), "Q4_0")


def test_a_folder_is_guessed_within_a_third(f16: Path) -> None:
    for name in ("Q4_K_M", "Q8_0", "Q2_K", "F16"):
        assert 0.95 < size(HF, name) / size(f16, name) < 1.35


def test_progress_counts_tensors(small: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def progress(_stage: str, done: int, total: int) -> None:
        seen.append((done, total))

    quantize(small, tmp_path / "it.gguf", "Q4_0", threads=1, progress=progress)
    assert seen == [(done, 21) for done in range(22)]


def test_what_progress_raises_is_not_lost(small: Path, tmp_path: Path) -> None:
    def stop(_stage: str, done: int, _all: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(small, tmp_path / "it.gguf", "Q4_0", threads=1, progress=stop)
    assert not list(tmp_path.iterdir())


CHILD = """
import resource, sys, time
from pathlib import Path
from vigtui.registry.workshop.quantize import quantize
def progress(stage, done, total):
    if done == 20:
        print("half", flush=True)
        time.sleep(600)
if sys.argv[3] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    slow = progress if sys.argv[3] == "slow" else lambda *_: None
    quantize(Path(sys.argv[1]), Path(sys.argv[2]), "Q8_0", threads=1, progress=slow)
except Exception as error:
    print(type(error).__name__, error)
"""


def child(source: Path, target: Path, way: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(source), str(target), way]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_the_source_and_no_target(f16: Path, tmp_path: Path) -> None:
    before, target = digest(f16), tmp_path / "it.gguf"
    with child(f16, target, "slow") as process:
        assert process.stdout and process.stdout.readline() == "half\n"
        process.kill()
    assert not target.exists()
    assert digest(f16) == before
    quantize(f16, target, "Q8_0", threads=1)
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_told(f16: Path, tmp_path: Path) -> None:
    with child(f16, tmp_path / "it.gguf", "full") as process:
        assert process.stdout and process.stdout.read().startswith(CapacityError.__name__)
    assert not list(tmp_path.iterdir())
