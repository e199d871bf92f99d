"""Small files that are what they say: GGUF of any size, safetensors, an adapter, all made of noise."""

import io
import json
import struct
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np


@cache
def gguf(size: int = 200_000, seed: int = 0, part: int = 0, parts: int = 1) -> bytes:
    """A GGUF file of Llama's architecture with one F32 tensor of `size` bytes; part `part` of `parts`."""
    from gguf import GGUFWriter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_context_length(512)
        writer.add_file_type(0)
        if parts > 1:
            writer.add_uint16("split.count", parts)
            writer.add_uint16("split.no", part)
        noise = np.random.default_rng([seed, part]).standard_normal(size // 4).astype(np.float32)
        writer.add_tensor(f"blk.{part}.weight", noise)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def safetensors(size: int = 4000, name: str = "a.weight") -> bytes:
    """A safetensors file with one F32 tensor of `size` bytes."""
    header = json.dumps({name: {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(range(256)) * (size // 256) + bytes(size % 256)


def torch(name: str = "a.weight") -> bytes:
    """What torch.save writes for one tensor of four float32 (a ZIP of a pickle and its storages)."""
    key = name.encode()
    pickle = (
        b"\x80\x02ccollections\nOrderedDict\n)R(X" + struct.pack("<I", len(key)) + key + b"ctorch._utils\n"
        b"_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0000X\x03\0\0\0cpuK\x04tQ"
        b"K\x00K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRu."
    )
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", pickle)
            archive.writestr("archive/data/0", struct.pack("<4f", 1, 2, 3, 4))
        return file.getvalue()


def transformers(**more: bytes) -> dict[str, bytes]:
    """A Hugging Face folder's files, the weights in one safetensors file; `more` by name with __ for a dot."""
    files = {
        "config.json": json.dumps(
            {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 2048}
        ).encode(),
        "tokenizer_config.json": b"{}",
        "README.md": b"# A model\n",
        "model.safetensors": safetensors(),
    }
    return files | {name.replace("__", "."): data for name, data in more.items()}


def adapter(base: str) -> dict[str, bytes]:
    """A PEFT adapter's files."""
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": base}
    tensor = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    return {
        "adapter_config.json": json.dumps(config).encode(),
        "adapter_model.safetensors": safetensors(name=tensor),
        "README.md": b"# An adapter\n",
    }
