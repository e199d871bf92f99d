"""The workshop's plan and its runs: names, refusals, what is found again, and what becomes of what fails."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import Any, BinaryIO

import numpy as np
import pytest
from safetensors.numpy import save_file
from vigtui.backends.base import Done, Event, Text
from vigtui.chat.probe import probe
from vigtui.core import paths
from vigtui.core.errors import BackendError, CapacityError, FormatError, NotFoundError, UsageError, VigtuiError
from vigtui.registry import memory
from vigtui.registry.record import Record
from vigtui.registry.remove import remove
from vigtui.registry.store import Registry
from vigtui.registry.transfer import Paused
from vigtui.registry.workshop import job, pipeline
from vigtui.registry.workshop.order import Order, Packing, Quantizing
from vigtui.registry.workshop.plan import prepare, require
from vigtui.registry.workshop.product import Garbage
from vigtui.registry.workshop.step import Step

from .. import tiny
from ..tui.conftest import children
from .test_legacy import Model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama `base`, an adapter of it `lora`, and its GGUF file `base.gguf`."""
    folder = tmp_path_factory.mktemp("made")
    tiny.write_gguf(folder / "base.gguf", ffn=64)
    (folder / "base.hf").rename(folder / "base")
    tiny.adapter(folder / "lora", folder / "base")
    return folder


def order(source: Path | str, *types: str, work: str = "quantize", **more: Any) -> Order:
    return Order(work, str(source), types=types, **{"check": False, "threads": 1, **more})


def run(wanted: Order, *arguments: Any) -> tuple[list[Record], list[str]]:
    """Carry out an order; give the records and the stages that were done."""
    steps: list[Step] = []
    records = pipeline.run(wanted, None, steps.append, *arguments)
    return records, [step.work for step in steps if step.state == "done"]


def refs(wanted: Order) -> list[str]:
    return [product.record.ref for product in prepare(wanted).products]


def test_names() -> None:
    assert refs(order("vigogneau-hf", "q8_0", "Q4_K_M")) == ["vigogneau-hf:Q8_0", "vigogneau-hf:Q4_K_M"]
    assert refs(order("vigogneau-hf", "Q8_0", name="mine")) == ["mine:Q8_0"]
    assert refs(order("vigogneau-hf", "Q8_0", name="mine:small")) == ["mine:small"]
    assert refs(order("vigogneau-hf", work="convert")) == ["vigogneau-hf:F16"]
    assert refs(order("vigogneau-hf", "f32", work="convert")) == ["vigogneau-hf:F32"]
    sailor = {"work": "merge", "adapters": (("vigogneau-marin", 1.0),)}
    assert refs(order("vigogneau-hf", "Q4_K_M", **sailor)) == ["vigogneau-hf-marin:Q4_K_M"]
    assert refs(order("vigogneau-hf", **sailor)) == ["vigogneau-hf-marin"]
    packing = Packing(bits=3, group_size=32, act_order=True)
    assert refs(order("vigogneau-hf", work="gptq")) == ["vigogneau-hf:GPTQ-4bit-128g"]
    assert refs(order("vigogneau-hf", work="gptq", packing=packing)) == ["vigogneau-hf:GPTQ-3bit-32g-actorder"]


def test_threads_reach_what_computes(made: Path) -> None:
    wanted = order(made / "base", work="gptq", threads=3, check=True, packing=Packing(group_size=32))
    assert {stage.work: stage.arguments["threads"] for stage in prepare(wanted).stages} == {"gptq": 3, "measure": 3}


def test_a_snapshot_of_the_hub_is_called_by_its_repository(made: Path, tmp_path: Path) -> None:
    base = shutil.copytree(made / "base", tmp_path / "models--org--llama" / "snapshots" / "f00d")
    other = tiny.adapter(tmp_path / "models--me--lora" / "snapshots" / "beef", base, base_model_name_or_path="x/else")
    plan = prepare(order(base, work="merge", adapters=((str(other), 1.0),)))
    assert any("me/lora was trained on x/else" in said and "fit org/llama" in said for said in plan.notices)


def test_a_plan_names_the_stages_and_their_bytes(made: Path) -> None:
    plan = prepare(order(made / "base", "Q8_0", "Q4_0", check=True))
    assert [stage.work for stage in plan.stages] == ["convert", "quantize", "quantize", "measure", "measure"]
    sizes = [stage.size for stage in plan.stages]
    assert sizes[0] > sizes[1] > sizes[2] > 0 and plan.disk == sum(sizes[:3])
    merge = order(made / "base", "Q8_0", work="merge", adapters=((str(made / "lora"), 1.0),), check=True)
    works = [stage.work for stage in prepare(merge).stages]
    assert works == ["merge", "convert", "quantize", "convert", "adapter", "measure"]
    assert prepare(merge).disk < sum(stage.size for stage in prepare(merge).stages)  # what is read no more goes


@pytest.mark.parametrize(
    ("wanted", "kind", "said"),
    [
        (lambda f: order(f / "base", "Q9_X"), UsageError, "Q9_X"),
        (lambda f: order(f / "base", "IQ2_XXS"), UsageError, "importance matrix"),
        (lambda f: order("vigogneau", "Q4_0"), UsageError, "allow-requantize"),
        (lambda f: order(f / "nothing", "Q8_0"), NotFoundError, "nothing"),
        (lambda f: order(f / "lora", "Q8_0"), UsageError, "vigtui merge"),
        (lambda f: order(f / "base.gguf", "Q8_0", output=f / "base.gguf"), UsageError, "would destroy"),
        (lambda f: order(f / "base", "Q8_0", output=f / "base" / "x.gguf"), UsageError, "would destroy"),
        (lambda f: order(f / "base", "Q8_0", output=f / "lora"), UsageError, "there already"),
        (lambda f: order(f / "base", "Q8_0", name="vigogneau:"), UsageError, "--name"),
        (lambda f: order(f / "base", "Q8_0", name="No!"), UsageError, "name"),
        (lambda f: order(f / "base.gguf", work="gptq"), FormatError, "original"),
        (lambda f: order(f / "base.gguf", work="convert"), UsageError, "vigtui quantize"),
        (lambda f: order(f / "base", work="convert", to="hf"), UsageError, "already"),
        (lambda f: order(f / "base", work="convert", to="adapter"), UsageError, "no adapter"),
        (lambda f: order(f / "lora", "f16", work="convert"), UsageError, "--type"),
        (lambda f: order(f / "base.gguf", work="merge", adapters=((str(f / "lora"), 1.0),)), FormatError, "merged"),
        (lambda f: order(f / "base", work="merge", adapters=((str(f / "base"), 1.0),)), UsageError, "whole model"),
        (lambda f: order(f / "base", "Q8_0", output=f / "base.gguf" / "x"), UsageError, "Nothing can be written"),
        (lambda f: order(f / "base", "Q8_0", quantizing=Quantizing(calibration="far")), UsageError, "fr, en"),
        (lambda f: order(f / "base", "Q8_0", quantizing=Quantizing(calibration=str(f))), UsageError, "fr, en"),
        (lambda f: order(f / "base", "Q8_0", quantizing=Quantizing(imatrix=f / "base.gguf")), FormatError, "matrix"),
        (lambda f: order(f / "base", work="gptq", packing=Packing(damp=2.0)), UsageError, "--damp"),
        (
            lambda f: order(f / "base", work="gptq", packing=Packing(group_size=32, calibration="far")),
            UsageError,
            "fr, en",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    made: Path, home: Path, wanted: Callable[[Path], Order], kind: type[VigtuiError], said: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    with pytest.raises(kind) as caught:
        pipeline.run(wanted(made))
    assert said in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    assert not (paths.cache() / "workshop").exists() and not (paths.models() / "products").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"work": "merge"}, "--lora"),
        ({"work": "quantize"}, "-q"),
        ({"work": "quantize", "types": ("Q8_0", "Q4_0"), "output": Path("x")}, "One name"),
        ({"work": "quantize", "types": ("Q8_0", "Q4_0"), "name": "a:b"}, "One name"),
        (
            {"work": "quantize", "types": ("Q8_0",), "quantizing": Quantizing(imatrix=Path("x"), calibration="fr")},
            "excl",
        ),
        ({"work": "merge", "adapters": (("x", 1.0),), "quantizing": Quantizing(calibration="fr")}, "-q"),
    ],
)
def test_orders_that_cannot_be_meant(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Order(source="vigogneau-hf", **fields)
    assert said in str(caught.value)


def test_a_folder_without_tokenizer_and_an_unknown_architecture(made: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(made / "base", tmp_path / "bare")
    (bare / "tokenizer.model").unlink()
    merge = {"work": "merge", "adapters": ((str(made / "lora"), 1.0),)}
    for wanted in (order(bare, "Q8_0"), order(bare, **merge)):
        with pytest.raises(FormatError, match="tokenizer"):
            prepare(wanted)
    strange = shutil.copytree(made / "base", tmp_path / "strange")
    config = json.loads((strange / "config.json").read_text())
    (strange / "config.json").write_text(json.dumps(config | {"architectures": ["NewForCausalLM"]}))
    with pytest.raises(FormatError, match="NewForCausalLM"):
        prepare(order(strange, "Q8_0"))


def test_it_must_fit(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = order(made / "base", "Q8_0", check=True)
    monkeypatch.setattr(memory, "disk", lambda _folder: 1000)
    left = paths.cache() / "workshop" / "old" / "model.gguf"
    left.parent.mkdir(parents=True)
    with left.open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(CapacityError, match="disk") as caught:
        pipeline.run(wanted)
    assert "5 MB" in caught.value.hint
    monkeypatch.setattr(memory, "disk", lambda _folder: 10**12)
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(CapacityError, match="memory") as caught:
        pipeline.run(wanted)
    assert "--no-check" in caught.value.hint
    require(prepare(order(made / "base", "Q8_0")))
    (record,), _stages = run(order(made / "base", "Q8_0", force=True))
    assert record.size > 0


def test_products_are_registered_with_their_lineage(made: Path) -> None:
    adapters = (("vigogneau-marin", 0.5),)
    (record,), stages = run(order("vigogneau-hf", "Q8_0", work="merge", adapters=adapters))
    assert stages == ["merge", "convert", "quantize"]
    assert Registry().find("vigogneau-hf-marin:Q8_0") == record
    assert (record.kind, record.quantization, record.origin) == ("gguf", "Q8_0", "made")
    assert record.parents == ("vigogneau-hf", "vigogneau-marin")
    base = Registry().find("vigogneau-hf")
    assert (record.format, record.licence, dict(record.generation)) == (base.format, base.licence, base.generation)
    assert record.context == base.context
    assert (record.made_with["scales"], record.made_with["type"]) == ([0.5], "Q8_0")
    assert record.files[0].sha256 and record.path.is_relative_to(paths.models() / "products")
    remove(record)
    assert list((paths.models() / "products").rglob("*")) == []


def test_several_types_share_what_comes_before_them(made: Path) -> None:
    records, stages = run(order(made / "base", "Q8_0", "Q4_0"))
    assert stages == ["convert", "quantize", "quantize"]
    assert [record.quantization for record in records] == ["Q8_0", "Q4_0"]
    assert list((paths.cache() / "workshop").iterdir()) == []


def test_the_very_same_product_is_here_and_another_needs_a_name(made: Path, tmp_path: Path) -> None:
    (first,), _stages = run(order(made / "base", "Q8_0"))
    again, stages = run(order(made / "base", "Q8_0"))
    assert (again, stages) == ([first], [])
    copy = shutil.copytree(made / "base", tmp_path / "base")
    assert run(order(copy, "Q8_0")) == ([first], [])  # the same content elsewhere
    with pytest.raises(UsageError, match="already a model base:Q8_0"):
        run(order(made / "base", "Q8_0", quantizing=Quantizing(pure=True, leave_output_tensor=True)))
    first.path.unlink()
    (third,), stages = run(order(made / "base", "Q8_0"))
    assert third.files == first.files and stages == ["convert", "quantize"]


def test_kept_intermediates_serve_the_next_order(made: Path) -> None:
    steps: list[Step] = []
    pipeline.run(order(made / "base", "Q8_0", keep=True), None, steps.append)
    (kept,) = [Path(step.label) for step in steps if step.state == "kept"]
    assert kept.read_bytes()[:4] == b"GGUF"
    assert run(order(made / "base", "Q4_0"))[1] == ["quantize"]
    assert kept.exists()


def test_an_output_of_ones_own(made: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "own.gguf"
    (record,), _stages = run(order(made / "base", "Q8_0", output=target))
    assert record.path == target and list((paths.models()).glob("products/*")) == []
    with pytest.raises(UsageError, match="here already"):
        prepare(order(made / "base", "Q8_0", output=tmp_path / "other.gguf"))
    remove(record)
    assert target.exists()


def test_an_output_on_another_disk(made: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == made.stat().st_dev:
        pytest.skip("there is only one disk")
    folder = shared / f"vigtui-{os.getpid()}"
    try:
        merge = {"work": "merge", "adapters": ((str(made / "lora"), 1.0),)}
        for wanted in (
            order(made / "base", "Q8_0", output=folder / "a.gguf"),
            order(made / "base", output=folder / "b", **merge),
        ):
            (record,), _stages = run(wanted)
            assert record.path.is_relative_to(folder) and record.size > 0
        assert sorted(path.name for path in folder.iterdir()) == ["a.gguf", "b"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_disk_that_fills_up_while_a_product_is_copied_to_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = tmp_path / "far", os.rename
    wanted = order(made / "base", output=folder / "out", work="merge", adapters=((str(made / "lora"), 1.0),))

    def elsewhere(source: Path, target: Path) -> None:
        if folder in Path(target).parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    def full(_source: Path, target: Path) -> None:
        target.write_bytes(b"some of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", elsewhere)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy2", full)
        with pytest.raises(CapacityError, match="disk is full"):
            run(wanted)
    assert list(folder.iterdir()) == []
    (record,), stages = run(wanted)
    assert stages == [] and [path.name for path in folder.iterdir()] == ["out"] and record.size > 0


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("MemoryError", "memory is full"),
        ("ValueError('I/O error: No space left on device (os error 28)')", "disk is full"),
    ],
)
def test_a_library_that_finds_no_room(made: Path, monkeypatch: pytest.MonkeyPatch, raised: str, said: str) -> None:
    lines = ("from vigtui.registry.workshop import job_child", "def fail(*_given):", f"    raise {raised}",
             "job_child.WORKS['convert'] = fail", "job_child.main()")  # fmt: skip

    def spawn(log: BinaryIO, _held: Sequence[int]) -> Any:
        return subprocess.Popen([sys.executable, "-c", "\n".join(lines)], stdin=PIPE, stdout=PIPE, stderr=log)

    monkeypatch.setattr(job, "spawn", spawn)
    with pytest.raises(CapacityError, match=said):
        pipeline.run(order(made / "base", work="convert"))


def test_a_process_that_dies_costs_its_stage_only(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    spawn = job.spawn

    def deadly(*arguments: Any) -> Any:
        started.append(spawn(*arguments))
        if len(started) == 2:
            started[-1].kill()  # long before it has imported anything
        return started[-1]

    monkeypatch.setattr(job, "spawn", deadly)
    with pytest.raises(BackendError, match="SIGKILL") as caught:
        pipeline.run(order(made / "base", "Q8_0"))
    assert "workshop-" in caught.value.hint and "memory" in caught.value.hint
    assert not [one for one in Registry().all() if one.origin == "made"]
    assert run(order(made / "base", "Q8_0"))[1] == ["quantize"]


def test_a_stop_keeps_what_is_finished(made: Path) -> None:
    reached, before = threading.Event(), children(os.getpid())

    def observe(step: Step) -> None:
        if step.work == "quantize":
            reached.set()

    with pytest.raises(Paused) as caught:
        pipeline.run(order(made / "base", "Q8_0"), None, observe, reached.is_set)
    assert caught.value.exit_code == 130 and "same command" in caught.value.hint
    assert children(os.getpid()) == before
    assert run(order(made / "base", "Q8_0"))[1] == ["quantize"]


def test_two_runs_of_the_same_make_it_once(made: Path) -> None:
    begun, waits, seen = threading.Event(), threading.Event(), list[Step]()
    results: list[list[Record]] = []

    def first(step: Step) -> None:
        if step.work == "quantize":
            begun.set()
            assert waits.wait(60)

    def second(step: Step) -> None:
        seen.append(step)
        if step.state == "wait":
            waits.set()

    def work(observe: Callable[[Step], None]) -> None:
        results.append(pipeline.run(order(made / "base", "Q8_0"), None, observe))

    one = threading.Thread(target=work, args=(first,))
    one.start()
    assert begun.wait(60)
    work(second)
    one.join(60)
    assert len(results) == 2 and results[0] == results[1]
    assert "wait" in {step.state for step in seen} and "quantize" not in {step.work for step in seen}


def test_a_product_that_answers_nothing_is_not_registered(made: Path) -> None:
    def silent(*_arguments: object) -> Iterator[Event]:
        yield Text(" \n", 1)
        yield Done("stop", 1, 0, 1, 0.1, 0.1, 0)

    with pytest.raises(Garbage, match="answers nothing") as caught:
        pipeline.run(order(made / "base", "Q8_0"), silent)
    assert caught.value.exit_code == 1
    lies = Path(caught.value.hint.split()[-1].rstrip("."))
    assert lies.is_file() and not [one for one in Registry().all() if one.origin == "made"]
    with pytest.raises(Garbage) as caught:
        pipeline.run(order(made / "base", "Q8_0", "Q4_0"), silent)
    lying = [f"{path}." for path in (paths.cache() / "workshop").glob("*/model.gguf")]
    assert len(lying) == 2 and all(path in str(caught.value) for path in lying)
    assert all(f"base:{type} is not registered" in str(caught.value) for type in ("Q8_0", "Q4_0"))
    (record,) = pipeline.run(order("vigogneau-hf", "Q8_0"), probe)
    assert "vigogneau" in record.made_with["trial"]["text"] and record.made_with["trial"]["ended"] is True


def test_the_report_stands_in_the_record(made: Path) -> None:
    (record,) = pipeline.run(order(made / "base", "Q8_0", check=True, tokens=64))
    report = record.made_with["report"]
    assert set(report["texts"]) == {"fr", "en"} and report["garbage"] is None
    assert all(text["kl_divergence"] < 0.1 for text in report["texts"].values())
    assert 0 < report["size"] < report["reference_size"]


def test_leftovers_of_dead_runs_are_swept(made: Path) -> None:
    home = paths.cache() / "workshop"
    half, old, young, partly = (home / name for name in ("half", "old", "young", "partly"))
    for folder in (half, old, young, partly / "work"):
        folder.mkdir(parents=True)
        (folder / "model.gguf").write_bytes(b"x")
    for folder in (old, young):
        (folder / "done.json").write_text("{}")
    os.utime(old, (0, 0))
    (home / "gone.lock").touch()
    run(order(made / "base", "Q8_0"))
    assert sorted(path.name for path in home.iterdir()) == ["partly", "young"]
    assert (partly / "work" / "model.gguf").exists()  # what a stage goes on from


def test_a_conversion_of_an_adapter(made: Path) -> None:
    (record,), stages = run(order("vigogneau-marin", work="convert"))
    assert (record.ref, record.kind, stages) == ("vigogneau-marin:GGUF", "adapter", ["adapter"])
    with pytest.raises(UsageError, match="already"):
        prepare(order(record.path, work="convert"))


def test_an_adapter_that_names_no_base(tmp_path: Path) -> None:
    bare = tiny.adapter(tmp_path / "bare", tiny.write_llama(tmp_path / "base"), base_model_name_or_path="")
    with pytest.raises(FormatError, match="base model"):
        run(order(bare, work="convert"))
    (record,), _stages = run(order(bare, work="convert", base=str(tmp_path / "base")))
    assert (record.ref, record.size > 0) == ("bare:GGUF", True)


def test_a_file_of_2023_is_quantized_again(tmp_path: Path) -> None:
    path = Model("ggjt1", "F16").write(tmp_path / "llama-7b.bin")
    (record,), stages = run(order(path, "Q8_0", check=True, tokens=64))
    assert (record.ref, stages) == ("llama-7b:Q8_0", ["legacy", "quantize", "measure"])
    (whole,), _stages = run(order(path, work="convert", check=True))
    assert whole.ref == "llama-7b:F16" and any("no quality report" in said for said in whole.notices)
    path = Model("ggjt3", "Q4_0").write(tmp_path / "small.bin")
    with pytest.raises(UsageError, match="quantized already"):
        prepare(order(path, "Q8_0"))


def test_an_adapter_that_nothing_applies_at_run_time(made: Path, tmp_path: Path) -> None:
    dora = tiny.adapter(tmp_path / "dora", made / "base", use_dora=True)
    factors = tiny.factors(made / "base", 4)
    magnitudes = {
        name.replace("lora_B.weight", "lora_magnitude_vector"): np.ones(value.shape[0], np.float32)
        for name, value in factors.items()
        if "lora_B" in name
    }
    save_file({**factors, **magnitudes}, dora / "adapter_model.safetensors")
    merge = {"work": "merge", "adapters": ((str(dora), 1.0),), "check": True, "tokens": 64}
    (record,), stages = run(order(made / "base", "Q8_0", **merge))
    assert stages == ["merge", "convert", "quantize", "measure"]
    assert record.made_with["report"]["garbage"] is None
    assert any("in half precision" in said for said in record.notices)
    (whole,), stages = run(order(made / "base", **merge))
    assert stages == ["merge"] and any("no quality report" in said for said in whole.notices)
