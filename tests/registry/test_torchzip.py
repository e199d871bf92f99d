"""PyTorch's files as byte ranges: what torch wrote is found, whatever its layout, and what means harm is refused."""

import argparse
import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from vigtui.core.errors import FormatError, VigtuiError
from vigtui.registry.convert import safetensors, torchzip, weights

from .. import tiny
from . import torchfile

LIMIT = 64 << 20
SHAPES = {"model.norm.weight": (64,), "w": (8, 16)}


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def bytes_of(tensor: safetensors.Tensor) -> bytes:
    return tensor.path.read_bytes()[tensor.begin : tensor.end]


@pytest.fixture(scope="module")
def torch():
    found = pytest.importorskip("torch")
    found.set_num_threads(1)
    return found


@pytest.fixture(params=["zip", "before 1.6"])
def save(request: pytest.FixtureRequest, torch, tmp_path: Path):
    def write(value: object) -> Path:
        path = tmp_path / "a.bin"
        torch.save(value, path, _use_new_zipfile_serialization=request.param == "zip")
        return path

    return write


def test_every_type_and_view(torch, save: Callable[[object], Path]) -> None:
    w, flat = torch.randn(6, 4), torch.arange(24.0)
    state = {
        "plain": w, "half": w.half(), "brain": w.bfloat16(), "double": w.double(), "long": torch.arange(5),
        "byte": torch.arange(3, dtype=torch.uint8), "flag": torch.tensor([True, False]), "tied": w, "rows": w[2:4],
        "window": flat[3:9].view(2, 3), "parameter": torch.nn.Parameter(w.clone()), "none": torch.zeros(0, 4),
        "number": torch.tensor(3.5), "one": w[:1].t()[:1],
    }  # fmt: skip
    found = torchzip.tensors(save(state))
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        raw = torch.cat([tensor.detach().reshape(-1)]).view(torch.uint8).numpy().tobytes()
        assert (found[name].shape, bytes_of(found[name])) == (tuple(tensor.shape), raw), name
    assert (found["tied"].begin, found["tied"].dtype) == (found["plain"].begin, "F32")
    assert [found[name].dtype for name in ("half", "brain", "double", "long", "byte", "flag")] == [
        "F16", "BF16", "F64", "I64", "U8", "BOOL",
    ]  # fmt: skip


def test_modules_and_training_checkpoints(torch, save: Callable[[object], Path]) -> None:
    layer = torch.nn.Linear(3, 5)
    state = layer.state_dict()
    extra = {"step": 3, "lr": 0.1, "seen": {"a", "b"}, "type": torch.float16, "device": torch.device("cpu")}
    for value in (state, {"state_dict": state, **extra}, {"model": state, "noise": np.arange(3), **extra}):
        found = torchzip.tensors(save(value))
        assert {name: tensor.shape for name, tensor in found.items()} == {"weight": (5, 3), "bias": (5,)}
        assert bytes_of(found["weight"]) == layer.weight.detach().numpy().tobytes()


def refused(path: Path, *words: str) -> None:
    with pytest.raises(FormatError) as caught:
        torchzip.tensors(path)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint


def test_what_is_no_byte_range(torch, save: Callable[[object], Path]) -> None:
    w = torch.randn(6, 4)
    refused(save({"w": w.t()}), "w", "contiguous")
    refused(save({"w": w[:, 1:3]}), "w", "contiguous")
    refused(save({"w": w[:1].expand(6, 4)}), "w", "contiguous")
    refused(save({"w": torch.view_as_complex(w.view(6, 2, 2))}), "w", "Complex")
    refused(save({"noise": 3}), "no weights")
    refused(save([1, 2]), "no weights")


def test_types_without_a_storage_of_their_own(torch, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4).to(torch.float8_e4m3fn)}, tmp_path / "a.bin")
    refused(tmp_path / "a.bin", "w", "float8_e4m3fn")


def test_functions_are_named_and_not_called(torch, save: Callable[[object], Path], tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self):
            return (eval, (f"open({str(tmp_path / 'harmed')!r}, 'w')",))

    refused(save({"w": torch.ones(2), "harm": Harm()}), "would run code", "eval")
    refused(save({"w": torch.ones(2), "args": argparse.Namespace(lr=1)}), "argparse.Namespace")
    refused(save({f"w{n}": torch.ones(1) for n in range(200)} | {"z": torch.hub.load}), "torch.hub.load")
    assert not (tmp_path / "harmed").exists()


def test_a_folder_of_either_form(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "hf")
    whole = weights.index(folder)
    assert whole.keys() == safetensors.whole(folder / "model.safetensors").keys()
    put(folder / "pytorch_model.bin", torchfile.archive(SHAPES))
    assert weights.index(folder).keys() == whole.keys()
    (folder / "model.safetensors").unlink()
    assert weights.index(folder).keys() == SHAPES.keys()
    put(folder / "pytorch_model-00001-of-00002.bin", torchfile.archive({"a": (4,)}))
    put(folder / "pytorch_model-00002-of-00002.bin", torchfile.old({"b": (4,)}))
    names = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    assert weights.index(folder).keys() == {"a", "b"}
    (folder / names["b"]).unlink()
    with pytest.raises(FormatError, match=names["b"]):
        weights.index(folder)
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../../etc/passwd"}}')
    with pytest.raises(FormatError, match=r"index\.json"):
        weights.index(folder)
    for path in folder.glob("pytorch_model*"):
        path.unlink()
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        weights.index(folder)
    save_file({"c": np.zeros(4, np.float32)}, folder / "gptq_model-4bit.safetensors")
    save_file({"d": np.zeros(4, np.float32)}, folder / "adapter_model.safetensors")
    assert weights.index(folder).keys() == {"c"}


def compressed(path: Path) -> Path:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", torchfile.state({"w": (1 << 20,)}))
        archive.writestr("archive/data/0", bytes(2 << 20), zipfile.ZIP_DEFLATED)
    return put(path, out.getvalue())


def overlapping(path: Path) -> Path:
    """Two entries of the directory that name the same place."""
    data = bytearray(torchfile.archive({"a": (1000,), "b": (1000,)}))
    first, second = (data.rindex(f"archive/data/{n}".encode()) - 46 for n in (0, 1))
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    return put(path, bytes(data))


def shared(path: Path) -> Path:
    """Ten thousand tensors that are all the same megabyte."""
    one = torchfile.tensor((1 << 19,), "F16", 0)
    items = b"".join(torchfile.text(f"w{n}") + one for n in range(2000))
    pickle = b"\x80\x02}(" + items + b"u."
    return put(path, torchfile.archive({"w": (1 << 19,)}, pickle=pickle))


def beyond(path: Path) -> Path:
    """A view that begins at the end of its storage."""
    pickle = torchfile.state({"w": (4,)}).replace(b"K\x00", b"K\x04", 1)
    return put(path, torchfile.archive({"w": (4,)}, pickle=pickle))


def big_endian(path: Path) -> Path:
    put(path, torchfile.archive(SHAPES))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    return path


@pytest.mark.parametrize("lie", [compressed, overlapping, shared, beyond, big_endian])
def test_archives_that_lie(tmp_path: Path, lie: Callable[[Path], Path]) -> None:
    torchzip.tensors(put(tmp_path / "good.bin", torchfile.archive(SHAPES)))
    refused(lie(tmp_path / "a.bin"), "a.bin")


@pytest.mark.parametrize("key", [b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009"])
def test_old_files_whose_keys_lie(tmp_path: Path, key: bytes) -> None:
    data = torchfile.old(SHAPES)
    at = data.rindex(b"X\x01\x00\x00\x001")
    refused(put(tmp_path / "a.bin", data[:at] + key + data[at + 6 :]), "a.bin")
    refused(put(tmp_path / "a.bin", data[:-264] + struct.pack("<q", 2**60) + data[-256:]))


MEASURE = """
import resource, sys
from pathlib import Path
from vigtui.core.errors import FormatError
from vigtui.registry.convert import legacy, meta, torchzip, weights
import numpy, gguf
unit = 1 if sys.platform == "darwin" else 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[1:]):
    work = {".bin": torchzip.tensors, ".ggml": lambda p: legacy.convert(p, p.with_name("out.gguf"))}
    folder = lambda p: meta.to_hf(p, p.with_name("out")) if (p / "params.json").is_file() else weights.index(p)
    try:
        work.get(path.suffix, folder)(path)
        print("accepted", path.name)
    except FormatError as error:
        print("refused", path.name) if error.hint else print("without a hint", path.name)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit)
"""


def bomb(compression: int) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        return put(path, torchfile.archive({}, pickle=bytes(200 << 20), compression=compression))

    return write


def pickle(opcodes: bytes) -> Callable[[Path], Path]:
    return lambda path: put(path, torchfile.archive({}, pickle=b"\x80\x02" + opcodes + b"."))


def holes(shape: tuple[int, ...]) -> Callable[[Path], Path]:
    """A gigabyte of hole, where the pickle claims two."""

    def write(path: Path) -> Path:
        head = torchfile.MAGIC + b"\x80\x02M\xe9\x03." + b"\x80\x02}q\x00."
        pickle = torchfile.state({"w": shape}, tail=b"N")
        put(path, head + pickle + b"\x80\x02](" + torchfile.text("0") + b"e." + struct.pack("<q", shape[0]))
        with path.open("rb+") as file:
            file.truncate(1 << 30)
        return path

    return write


def checkpoint(params: dict[str, object], shapes: dict[str, tuple[int, ...]]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.mkdir()
        put(path / "consolidated.00.pth", torchfile.archive(shapes))
        (path / "params.json").write_text(json.dumps(params))
        put(path / "tokenizer.model", tiny.sentencepiece_model())
        return path

    return write


def shards(listing: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.mkdir()
        put(path / "pytorch_model.bin.index.json", listing)
        return path

    return write


def ggml(*numbers: int, tail: bytes = b"", size: int = 0) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        put(path, b"tjgg" + struct.pack("<8I", 3, *numbers) + tail)
        with path.open("rb+") as file:
            file.truncate(max(size, path.stat().st_size))
        return path

    return write


WIDE = struct.pack("<5I", 2, 21, 1, 1 << 31, 1 << 31) + b"tok_embeddings.weight"
LOUD: dict[str, Callable[[Path], Path]] = {
    "deflated.bin": bomb(zipfile.ZIP_DEFLATED),
    "lzma.bin": bomb(zipfile.ZIP_LZMA),
    "stored.bin": bomb(zipfile.ZIP_STORED),
    "memo.bin": pickle(b"}" + b"r\xff\xff\xff\x7f" * 1000),
    "lists.bin": pickle(b"(" + b"]" * (3 << 20) + b"t"),
    "dictionaries.bin": pickle(b"(" + b"}" * 149_000 + b"t"),
    "nested.bin": pickle(b"]\x85" * 70_000),
    "doubled.bin": pickle(b"]q\x00" + b"(h\x00h\x00h\x00h\x00eq\x00" * 20_000),
    "text.bin": pickle(b"X" + struct.pack("<I", 3 << 20) + b"a" * (3 << 20) + b"q\x00" + b"h\x00\x86" * 30_000),
    "functions.bin": pickle(b"".join(b"cos\nf%d\n" % n for n in range(100_000))),
    "huge.bin": lambda path: put(path, torchfile.archive({"w": (4,)}, pickle=torchfile.state({"w": (1 << 30, 1)}))),
    "holes.bin": holes((1 << 30,)),
    "overlap.bin": overlapping,
    "many.bin": shared,
    "wide-meta": checkpoint({"dim": 1 << 30, "n_heads": 2, "n_layers": 2}, {"tok_embeddings.weight": (4, 4)}),
    "deep-meta": checkpoint({"dim": 1 << 16, "n_heads": 2, "n_layers": 512}, {"tok_embeddings.weight": (4, 4)}),
    "index": shards(b'{"weight_map":{' + b'"a":"b",' * (4 << 20)),
    "words.ggml": ggml(1 << 18, 64, 1, 1, 1, 1, 1, tail=bytes(4 << 20)),
    "long-words.ggml": ggml(1 << 18, 64, 1, 1, 1, 1, 1, tail=(struct.pack("<I", 4096) + bytes(4100)) * 2000),
    "wide.ggml": ggml(16, 64, 1, 1, 1, 1, 1, tail=bytes(8 * 16) + WIDE, size=1 << 40),
    "tensors.ggml": ggml(16, 64, 1, 1, 1, 1, 1, tail=bytes(8 * 16) + struct.pack("<4IB", 1, 1, 0, 0, 97) * 5000),
}


def test_a_loud_lie_is_refused_in_little_memory(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / name)) for name, write in LOUD.items()]
    command = [sys.executable, "-c", MEASURE, *paths]
    *lines, grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == [f"refused {name}" for name in LOUD]
    assert int(grown) < LIMIT, f"{int(grown) >> 20} MiB"


@given(flips=st.lists(st.integers(0, 8 * 1200), min_size=1, max_size=6), which=st.booleans(), cut=st.integers(0, 2000))
@settings(max_examples=300, deadline=None)
def test_damage_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, flips: list[int], which: bool, cut: int
) -> None:
    data = bytearray((torchfile.archive if which else torchfile.old)(SHAPES))
    for flip in flips:
        if flip // 8 < len(data):
            data[flip // 8] ^= 1 << flip % 8
    path = tmp_path_factory.getbasetemp() / "damage.bin"
    path.write_bytes(data[: len(data) - cut] if cut < 1000 else data)
    try:
        found = torchzip.tensors(path)
    except VigtuiError as error:
        assert error.hint
    else:
        size = path.stat().st_size
        assert all(0 <= tensor.begin <= tensor.end <= size for tensor in found.values())
