"""From a name to files, backend and adapter."""

from dataclasses import replace
from pathlib import Path

import pytest
from vigtui.backends.base import Backend, Generation, LoadOptions, Prompt, Text
from vigtui.core import config
from vigtui.core.errors import CapacityError, FormatError, NotFoundError, UsageError
from vigtui.registry import header, memory
from vigtui.registry import open as opening
from vigtui.registry.check import check
from vigtui.registry.convert.model import convert
from vigtui.registry.record import Record
from vigtui.registry.store import Registry

from .. import tiny


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    convert(tiny.folder(tmp_path / "hf"), tmp_path / "tiny.gguf", "f16")
    return tmp_path / "tiny.gguf"


def test_the_default_model(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opening.resolve(None).name == "vigogneau"
    Registry().add(gguf, "one")
    config.put("default_model", "one")
    assert opening.resolve(None).name == "one"
    Registry().add(gguf, "two")
    monkeypatch.setenv("VIGTUI_MODEL", "two")
    assert opening.resolve(None).name == "two"
    assert opening.resolve("vigogneau").name == "vigogneau"


def test_paths(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (str(gguf), "./tiny.gguf", "tiny.gguf"):
        assert opening.files(opening.resolve(name)).path == gguf
    assert opening.resolve("./hf").kind == "safetensors"
    assert opening.resolve("hf/model.safetensors").path == tmp_path / "hf"
    assert not (Registry().folder).exists()
    with pytest.raises(NotFoundError):
        opening.resolve("./nothing.gguf")
    (tmp_path / "vigogneau").mkdir()
    assert opening.resolve("vigogneau").source == "vigtui"


def test_backends() -> None:
    assert opening.backend_for(Record("a", "gguf")) == "llama.cpp"
    assert opening.backend_for(Record("a", "safetensors")) == "transformers"
    assert opening.backend_for(Record("a", "gptq")) == "gptq"
    assert opening.backend_for(Record("a", "gguf"), "echo") == "echo"
    with pytest.raises(UsageError) as caught:
        opening.backend_for(Record("a", "gguf"), "gptq")
    assert "llama.cpp" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        opening.backend_for(Record("marin", "adapter"))
    assert "--lora marin" in caught.value.hint


def test_a_gguf_adapter_is_taken_as_it_is(gguf: Path, tmp_path: Path) -> None:
    from vigtui.registry.convert import adapter

    lora = tiny.adapter(tmp_path / "lora", tmp_path / "hf")
    adapter.convert(lora, None, tmp_path / "ready.gguf")
    assert opening.adapter(str(tmp_path / "ready.gguf")) == (tmp_path / "ready.gguf", 1.0)
    Registry().add(tmp_path / "ready.gguf", "sailor")
    assert opening.adapter("sailor=0.5") == (tmp_path / "ready.gguf", 0.5)
    assert opening.adapter("sail=-2") == (tmp_path / "ready.gguf", -2.0)


def test_a_peft_adapter_is_converted_once(gguf: Path, tmp_path: Path, home: Path) -> None:
    lora = tiny.adapter(tmp_path / "lora", tmp_path / "hf")
    path, scale = opening.adapter(f"{lora}=0.25")
    assert scale == 0.25 and path.parent == home / "cache" / "adapters"
    assert header.read(path).text("adapter.type") == "lora"
    before = path.stat().st_mtime_ns
    assert opening.adapter(str(lora))[0].stat().st_mtime_ns == before
    tiny.adapter(tmp_path / "lora", tmp_path / "hf", seed=9)
    assert opening.adapter(str(lora))[0] != path


def test_the_model_in_use_gives_the_sizes(gguf: Path, tmp_path: Path) -> None:
    lora = tiny.adapter(tmp_path / "lora", tmp_path / "hf", base_model_name_or_path="somewhere/else")
    with pytest.raises(FormatError):
        opening.adapter(str(lora))
    path, _scale = opening.adapter(str(lora), opening.resolve(str(gguf)))
    assert len(header.read(path).tensors) == 28


@pytest.mark.parametrize("backend", ["transformers", "gptq"])
def test_a_peft_adapter_goes_to_pytorch_engines_as_it_is(gguf: Path, tmp_path: Path, home: Path, backend: str) -> None:
    lora = tiny.adapter(tmp_path / "lora", tmp_path / "hf")
    assert opening.adapter(f"{lora}=0.5", backend=backend) == (lora, 0.5)
    assert not (home / "cache" / "adapters").exists()
    opening.adapter(str(lora))
    [made] = (home / "cache" / "adapters").iterdir()
    with pytest.raises(FormatError) as caught:
        opening.adapter(str(made), backend=backend)
    assert "PEFT" in caught.value.hint


def test_the_plan_counts_what_transformers_widens(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "hf")
    single = check(folder)
    half = replace(single, quantization="F16", size=single.size // 2, expected=None)
    for found, options, bytes_each in (
        (single, LoadOptions(), 4),
        (half, LoadOptions(), 4),
        (half, LoadOptions(dtype="bf16"), 2),
        (half, LoadOptions(load_in="8bit"), 1),
    ):
        plan = opening.needs("a", found, options)
        assert plan.weights == found.parameters * bytes_each


@pytest.mark.parametrize("scale", ["", "x", "nan", "inf"])
def test_no_scale(scale: str) -> None:
    with pytest.raises(UsageError):
        opening.adapter(f"vigogneau={scale}")


def test_a_model_is_no_adapter(gguf: Path) -> None:
    with pytest.raises(UsageError):
        opening.adapter(str(gguf))


@pytest.mark.parametrize("in_process", [True, False])
def test_an_engine_with_the_model_and_an_adapter(gguf: Path, tmp_path: Path, in_process: bool) -> None:
    lora = tiny.adapter(tmp_path / "lora", tmp_path / "hf")
    backend = opening.open(opening.resolve(str(gguf)), LoadOptions(threads=1), in_process=in_process)
    try:
        assert backend.info and (backend.info.architecture, backend.info.vocabulary) == ("llama", 420)
        plain = answer(backend)
        backend.adapt([opening.adapter(str(lora))])
        assert answer(backend) != plain
        backend.adapt([])
        assert answer(backend) == plain
    finally:
        backend.close()


def answer(backend: Backend) -> str:
    greedy = Generation(temperature=0.0, max_tokens=12)
    events = backend.stream(Prompt((("Bonjour", True),)), greedy, lambda: False)
    return "".join(event.delta for event in events if isinstance(event, Text))


def test_what_does_not_fit_is_refused(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(CapacityError):
        opening.open(opening.resolve(str(gguf)), LoadOptions())
    opening.open(opening.resolve(str(gguf)), LoadOptions(threads=1), in_process=True, force=True).close()
    monkeypatch.setattr(memory, "gpu", lambda: 1 << 30)
    opening.open(opening.resolve(str(gguf)), LoadOptions(threads=1), in_process=True).close()
    with pytest.raises(CapacityError):
        opening.open(opening.resolve(str(gguf)), LoadOptions(gpu_layers=0))


def test_a_damaged_file_is_refused_before_a_load(gguf: Path) -> None:
    record = opening.resolve(str(gguf))
    gguf.write_bytes(gguf.read_bytes()[:-1])
    with pytest.raises(FormatError):
        opening.open(record, LoadOptions())
    gguf.unlink()
    with pytest.raises(NotFoundError):
        opening.open(record, LoadOptions())


def test_memory_is_read_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = memory.available()
    assert free is None or free > 0
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 4000 kB\n")
    (tmp_path / "self" / "cgroup").write_text("0::/a/b\n")
    group = tmp_path / "a"
    (group / "b").mkdir(parents=True)
    (group / "memory.max").write_text("3000\n")
    (group / "memory.current").write_text("2500\n")
    (group / "memory.stat").write_text("anon 100\ninactive_file 600\nactive_file 400\n")
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available() == 1500
    (group / "memory.max").write_text("max\n")
    assert memory.available() == 4000 * 1024
