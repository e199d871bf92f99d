"""The plan against what really happens: memory of real loads, and the choices that follow from it."""

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vigtui import assets
from vigtui.core.errors import CapacityError
from vigtui.registry import header, memory, plan, repack
from vigtui.registry.convert.model import convert
from vigtui.registry.plan import Machine, Shape

from .. import tiny

MB = 1 << 20
LOAD = """
import sys
from pathlib import Path
from vigtui.backends.base import Generation, LoadOptions, ModelFiles, Prompt
from vigtui.backends.llama_cpp import LlamaCppBackend
from vigtui.backends.llama_native import bindings

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

bindings()
before = resident()
engine = LlamaCppBackend()
options = LoadOptions(context=int(sys.argv[2]), threads=1)
engine.load(ModelFiles("m", "gguf", Path(sys.argv[1])), options, lambda *_: None)
words = Prompt(((" ".join(["w1"] * int(sys.argv[3])), True),))
list(engine.stream(words, Generation(max_tokens=2, temperature=0.0), lambda: False))
print(resident() - before)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")


def grown(path: Path, context: int, words: int) -> int:
    """Load the model in a process of its own, read a prompt, and give the bytes that the process grew by."""
    command = [sys.executable, "-c", LOAD, str(path), str(context), str(words)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def planned(path: Path, context: int) -> int:
    head = header.read(path)
    shape = plan.from_header(head)
    assert shape
    return plan.plan("m", head.size, shape, Machine(), context).memory + repack.repacked(head)


def write_large(path: Path, kind: gguf.GGMLQuantizationType, layers: int = 20) -> Path:
    """A Llama of 1,024 dimensions and 32,000 tokens; F16 has random weights, other types have zeros."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *(f"▁w{n:x}" for n in range(31_741))]
    types = [2, 3, 3, *[6] * 256, *[1] * 31_741]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(65_536)
    writer.add_embedding_length(1024)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2816)
    writer.add_head_count(16)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([-float(n) for n in range(len(words))])
    writer.add_token_types(types)
    matrices = {"token_embd": (32_000, 1024), "output": (32_000, 1024)}
    for n in range(layers):
        sizes = {"attn_q": (1024, 1024), "attn_k": (256, 1024), "attn_v": (256, 1024), "attn_output": (1024, 1024)}
        sizes |= {"ffn_gate": (2816, 1024), "ffn_up": (2816, 1024), "ffn_down": (1024, 2816)}
        matrices |= {f"blk.{n}.{name}": shape for name, shape in sizes.items()}
    block, width = gguf.GGML_QUANT_SIZES[kind]
    for name, (rows, columns) in matrices.items():
        shape = (rows, columns // block * width) if kind != gguf.GGMLQuantizationType.F16 else (rows, columns)
        item = np.uint8 if kind != gguf.GGMLQuantizationType.F16 else np.float16
        raw = kind if item is np.uint8 else None
        writer.add_tensor_info(f"{name}.weight", shape, np.dtype(item), rows * columns // block * width, raw)
    for name in ["output_norm", *(f"blk.{n}.{part}_norm" for n in range(layers) for part in ("attn", "ffn"))]:
        writer.add_tensor_info(f"{name}.weight", (1024,), np.dtype(np.float32), 4096)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 32)
        whole = header.read(path).expected
        file.truncate(whole)
        if kind == gguf.GGMLQuantizationType.F16:
            pool = np.random.default_rng(0).normal(0, 0.02, 1 << 22).astype(np.float16).tobytes()
            file.seek(path.stat().st_size - whole + header_end(path))
            while (left := whole - file.tell()) > 0:
                file.write(pool[:left])
    return path


def header_end(path: Path) -> int:
    head = header.read(path)
    return head.expected - max(tensor.offset + tensor.size for tensor in head.tensors)


@linux
@pytest.mark.timeout(240)
def test_a_large_model_grows_as_planned(tmp_path: Path) -> None:
    path = write_large(tmp_path / "large.gguf", gguf.GGMLQuantizationType.F16)
    assert path.stat().st_size > 500 * 1000 * 1000
    for context in (2048, 8192):
        real = grown(path, context, 300)
        assert abs(planned(path, context) - real) < real / 10, (planned(path, context) / MB, real / MB)


@linux
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_weights_that_are_copied_for_the_processor(tmp_path: Path, kind: str) -> None:
    path = write_large(tmp_path / "large.gguf", gguf.GGMLQuantizationType[kind], layers=12)
    real = grown(path, 1024, 150)
    assert abs(planned(path, 1024) - real) < real / 10, (planned(path, 1024) / MB, real / MB)


@linux
@pytest.mark.parametrize("context", [256, 4096, 16_384])
def test_tiny_models_grow_as_planned(tmp_path: Path, context: int) -> None:
    path = tiny.write_gguf(tmp_path / "tiny.gguf", context=16_384)
    for model in (path, assets.path("vigogneau/vigogneau.gguf")):
        assert abs(planned(model, context) - grown(model, context, 40)) < 30 * MB


LLAMA_7B = Shape(32, 32 * 32 * 2 * 128, 4096, 11_008, 32_000, 4096)


def test_the_kv_cache_of_llama_7b() -> None:
    assert plan.kv_cache(LLAMA_7B, 4096) == 2 << 30  # the figure that llama.cpp prints for it
    assert plan.kv_cache(LLAMA_7B, 1) == plan.kv_cache(LLAMA_7B, 256)


@pytest.mark.parametrize(
    ("config", "kv_width"),
    [
        ({"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096}, 32 * 32 * 256),
        (
            {"num_hidden_layers": 80, "num_attention_heads": 64, "hidden_size": 8192, "num_key_value_heads": 8},
            80 * 2048,
        ),
        ({"n_layer": 32, "n_head": 71, "hidden_size": 4544, "multi_query": True}, 32 * 128),
        ({"num_hidden_layers": 60, "num_attention_heads": 128, "hidden_size": 8192, "num_kv_heads": 8}, 60 * 8 * 128),
        ({"n_layers": 32, "n_heads": 32, "d_model": 4096, "max_seq_len": 2048}, 32 * 32 * 256),
        ({"n_layer": 30, "n_head": 32, "n_embed": 4096}, 30 * 32 * 256),
        ({"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "head_dim": 32}, 2 * 4 * 64),
    ],
)
def test_shapes_from_a_config(config: dict, kv_width: int) -> None:
    shape = plan.from_config(config)
    assert shape and shape.kv_width == kv_width


@pytest.mark.parametrize("config", [{}, {"hidden_size": "x"}, {"num_hidden_layers": -1}, {"n_layer": 2**40}])
def test_no_shape_is_no_guess(config: dict) -> None:
    assert plan.from_config(config) is None
    bare = plan.plan("m", 1000, None, Machine(memory=2000))
    assert (bare.memory, bare.kv, bare.longest, bare.fits) == (1000, None, None, True)


def test_a_header_with_a_number_for_each_layer(tmp_path: Path) -> None:
    from .test_sniff import changed

    convert(tiny.folder(tmp_path / "hf"), tmp_path / "a.gguf", "f16")
    shape = plan.from_header(header.read(tmp_path / "a.gguf"))
    assert shape == Shape(2, 2 * 2 * 32, 64, 96, 420, 256)
    same = plan.from_config(tiny.config())
    assert same == shape
    writer = changed(tmp_path / "a.gguf", tmp_path / "b.gguf", llama__context_length=512)
    metadata = dict(header.read(writer).metadata) | {"llama.attention.head_count_kv": [2, 1]}
    shape = plan.from_metadata(metadata)
    assert shape and (shape.kv_width, shape.context) == (3 * 32, 512)


@given(free=st.integers(0, 40 << 30), weights=st.integers(1 << 20, 30 << 30))
def test_the_longest_context_is_the_longest(free: int, weights: int) -> None:
    found = plan.longest(weights, LLAMA_7B, free)
    assert found % 256 == 0 and 0 <= found <= 4096
    if found:
        assert plan.plan("m", weights, LLAMA_7B, Machine(memory=free), found).memory <= free
    if found < 4096:
        assert plan.plan("m", weights, LLAMA_7B, Machine(memory=free), found + 256).memory > free


SIZES = {"Q2_K": 2.83, "Q3_K_M": 3.30, "Q4_0": 3.83, "Q4_K_M": 4.08, "Q5_K_M": 4.78, "Q8_0": 7.16}


@pytest.mark.parametrize(
    ("free", "present", "best"),
    [
        (16, SIZES, "Q4_K_M"),
        (6.7, SIZES, "Q4_K_M"),
        (6.2, SIZES, "Q4_0"),
        (6.0, SIZES, "Q3_K_M"),
        (5.3, SIZES, "Q2_K"),
        (3.0, SIZES, None),
        (16, ["Q2_K", "Q5_K_M", "Q8_0"], "Q5_K_M"),
        (16, ["Q8_0"], "Q8_0"),
    ],
)
def test_one_row_is_recommended(free: float, present: list[str], best: str | None) -> None:
    choices = [(label, int(SIZES[label] * 1e9), 0) for label in present]
    plans = plan.table(choices, LLAMA_7B, Machine(disk=10**12, memory=int(free * 1e9)))
    assert [one.label for one in plans] == list(present)
    assert [one.label for one in plans if one.recommended] == ([best] if best else [])


def test_the_gpu_holds_what_it_can() -> None:
    whole = plan.plan("m", 4 << 30, LLAMA_7B, Machine(memory=1 << 30, gpu=24 << 30))
    assert whole.gpu_layers == 32 and whole.fits
    part = plan.plan("m", 4 << 30, LLAMA_7B, Machine(memory=16 << 30, gpu=3 << 30))
    assert part.gpu_layers and 10 < part.gpu_layers < 20
    assert plan.plan("m", 4 << 30, LLAMA_7B, Machine(memory=1 << 30)).gpu_layers is None


def test_what_does_not_fit_is_refused_with_a_next_step() -> None:
    with pytest.raises(CapacityError) as caught:
        plan.require(plan.plan("m", 4 << 30, LLAMA_7B, Machine(disk=1 << 30), fetch=4 << 30), "vigogne")
    assert "4096 MB of disk" in caught.value.message and "1024 MB" in caught.value.message
    with pytest.raises(CapacityError) as caught:
        plan.require(plan.plan("m", 4 << 30, LLAMA_7B, Machine(memory=5 << 30)), "vigogne")
    assert "--ctx 1" in caught.value.hint
    with pytest.raises(CapacityError) as caught:
        plan.require(plan.plan("m", 4 << 30, LLAMA_7B, Machine(memory=3 << 30)), "vigogne")
    assert "--force" in caught.value.hint
    plan.require(plan.plan("m", 4 << 30, LLAMA_7B, Machine(memory=8 << 30, disk=8 << 30), fetch=4 << 30), "vigogne")


def test_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert memory.gpu() is None and memory.gpu_processes() == {}
    script.write_text(
        "#!/bin/sh\ncase $1 in *gpu=*) echo 80000; echo 1000;; *) echo '42, 512'; echo '43, [N/A]';; esac\n"
    )
    script.chmod(0o755)
    assert memory.gpu() == 81_000 * MB and memory.gpu_processes() == {42: 512 * MB}
    script.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed' ; exit 9\n")
    assert memory.gpu() is None


def test_free_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert memory.disk(tmp_path / "a" / "b") > 0


def test_the_first_bytes_of_a_file_are_enough_for_its_shape(tmp_path: Path) -> None:
    data = tiny.write_gguf(tmp_path / "m.gguf").read_bytes()
    whole = header.read(tmp_path / "m.gguf")
    shape = plan.from_header(whole)
    assert shape and plan.from_metadata(header.beginning(data)) == shape
    tokens = whole.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, header.Array)
    assert plan.from_metadata(header.beginning(data[: tokens.at + 50])) == shape
    for length in range(0, tokens.at, 7):
        assert header.beginning(data[:length]).keys() <= whole.metadata.keys()
    assert header.beginning(b"<!DOCTYPE html>") == {}
