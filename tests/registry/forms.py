"""The embedded model as F16 and F32 GGUF, and small models of other shapes."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from vigtui import assets
from vigtui.registry.convert.model import convert

from .. import tiny

HF = assets.path("vigogneau") / "hf"
Q8_0 = assets.path("vigogneau") / "vigogneau.gguf"
MARIN = assets.path("vigogneau") / "marin.gguf"
TEXT = " ".join(tiny.TALK) * 3


@pytest.fixture(scope="session")
def f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("f16") / "vigogneau.gguf"
    convert(HF, target, "f16")
    return target


@pytest.fixture(scope="session")
def f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("f32") / "vigogneau.gguf"
    convert(HF, target, "f32")
    return target


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with an output tensor of its own and rows of 64 and 128."""
    return tiny.write_gguf(tmp_path_factory.mktemp("small") / "small.gguf")


def experts(source: Path, target: Path, count: int = 4, used: int = 2) -> Path:
    """Give each feed-forward of `source` `count` random experts, of which a token takes `used`."""
    random, reader, writer = np.random.default_rng(3), gguf.GGUFReader(source), gguf.GGUFWriter(target, "llama")
    copy_keys(reader, writer)
    writer.add_expert_count(count)
    writer.add_expert_used_count(used)
    for tensor in reader.tensors:
        name, shape = tensor.name, tensor.data.shape
        if ".ffn_gate." in name:
            choice = random.normal(0, 0.3, (count, shape[1])).astype(np.float32)
            writer.add_tensor(name.replace("_gate.", "_gate_inp."), choice)
        if ".ffn_" in name and "norm" not in name:
            many = random.normal(0, 0.3, (count, *shape)).astype(np.float32)
            writer.add_tensor(name.replace(".weight", "_exps.weight"), many)
        else:
            writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
    return finish(writer, target)


def spoilt(source: Path, target: Path, name: str, value: float) -> Path:
    """Copy `source` with one weight of the tensor `name` set to `value`."""
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(target, "llama")
    copy_keys(reader, writer)
    for tensor in reader.tensors:
        data = np.array(tensor.data)
        if tensor.name == name:
            data.flat[5] = value
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    return finish(writer, target)


def split(source: Path, folder: Path, tensors: int) -> Path:
    """Copy `source` as a model in several files of so many tensors; give the first."""
    folder.mkdir()
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama", split_max_tensors=tensors)
    copy_keys(reader, writer)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    finish(writer, folder)
    return min(folder.glob("*.gguf"))


def copy_keys(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kinds = field.types
            writer.add_key_value(key, field.contents(), kinds[0], kinds[-1] if len(kinds) > 1 else None)


def finish(writer: gguf.GGUFWriter, target: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def kinds(path: Path) -> dict[str, str]:
    """Tensor → name of its type."""
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
