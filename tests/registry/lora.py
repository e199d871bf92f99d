"""Tiny models and adapters as transformers and PEFT save them, and PEFT's own merge of float32 copies."""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from vigtui.registry.convert import shards

Tensors = dict[str, Any]
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def torch_file(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """Write what torch.save would, without torch."""
    names = {"float32": "F32", "float16": "F16"}

    def bytes_of(array: np.ndarray) -> Iterator[bytes]:
        yield array.tobytes()

    outputs = [
        shards.Written(name, names[array.dtype.name], array.shape, partial(bytes_of, array))
        for name, array in tensors.items()
    ]
    shards.archive(path, outputs, lambda: None)
    return path


@contextmanager
def quiet():
    """PEFT and transformers warn of what these tests do on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def base(path: Path, dtype: str = "float32", kind: str = "llama", **changes: Any) -> Path:
    """Save a random model of `dtype`; `changes` go into its configuration, `max_shard_size` to the saving."""
    import torch
    import transformers

    shard = {"max_shard_size": changes.pop("max_shard_size")} if "max_shard_size" in changes else {}
    sizes = {
        "llama": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "num_key_value_heads": 2, "tie_word_embeddings": False},
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
        "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
        "qwen2": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "num_key_value_heads": 2},
    }[kind]  # fmt: skip
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, vocab_size=60, initializer_range=0.1, **{**sizes, **changes})
    with quiet():
        model = transformers.AutoModelForCausalLM.from_config(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
        model.to(getattr(torch, dtype)).save_pretrained(path, **shard)
    return path


def adapter(path: Path, model: Path, resize: int | None = None, dtype: str = "float32", seed: int = 2, **changes: Any):
    """Save a LoRA of rank 4 for `model` whose every weight is random; `changes` go into its configuration."""
    import peft
    import torch
    import transformers

    settings = {"r": 4, "lora_alpha": 6, "target_modules": SEVEN, "task_type": "CAUSAL_LM", **changes}
    with quiet():
        whole = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        if resize:
            whole.resize_token_embeddings(resize, mean_resizing=False)
        trained = peft.get_peft_model(whole, peft.LoraConfig(**settings))
        torch.manual_seed(seed)
        for name, parameter in trained.named_parameters():
            if parameter.requires_grad or "embed_tokens" in name or "lm_head" in name:
                noise = torch.randn_like(parameter) * 0.1
                parameter.data = parameter.data * (1 + noise) if "magnitude" in name else parameter.data + noise
        trained.save_pretrained(path)
    if dtype != "float32":
        recast(path, dtype)
    return path


def recast(path: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    file = path / "adapter_model.safetensors"
    save_file({name: tensor.to(getattr(torch, dtype)) for name, tensor in load_file(file).items()}, file)


def merged(model: Path, adapters: Sequence[tuple[Path, float]], resize: int | None = None) -> Tensors:
    """Give what PEFT merges in float32, cast to the dtype of `model`, by name."""
    import peft
    import torch
    import transformers

    with quiet():
        whole = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        if resize:
            whole.resize_token_embeddings(resize, mean_resizing=False)
        loaded, names = None, []
        for at, (path, scale) in enumerate(adapters):
            names.append(f"a{at}")
            if loaded is None:
                loaded = peft.PeftModel.from_pretrained(whole, path, adapter_name=names[-1])
            else:
                loaded.load_adapter(path, adapter_name=names[-1])
            for module in loaded.modules():
                if scale != 1 and isinstance(module, peft.tuners.lora.LoraLayer):
                    module.set_scale(names[-1], scale)
        assert loaded is not None
        result = loaded.merge_and_unload(adapter_names=names)
    kind = getattr(torch, json.loads((model / "config.json").read_text())["dtype"])
    return {name: tensor.to(kind) for name, tensor in result.state_dict().items()}


def load(folder: Path) -> Tensors:
    """Give the tensors of all safetensors files in `folder`."""
    from safetensors.torch import load_file

    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def within(units: int, found: Any, wanted: Any, before: Any) -> bool:
    """Tell whether two tensors differ by at most `units` in the last place of their dtype.

    Where W and its change cancel out, the sum is as exact as float32 makes W itself.
    """
    import torch

    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return False
    a, b = found.double().numpy(), wanted.double().numpy()
    bits = {torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}[found.dtype]
    least = {torch.float32: -149, torch.float16: -24, torch.bfloat16: -133}[found.dtype]

    def unit(values: np.ndarray, width: int, lowest: int) -> np.ndarray:
        return np.exp2(np.maximum(np.frexp(np.abs(values))[1] - 1 - width, lowest))

    allowed = units * unit(np.maximum(np.abs(a), np.abs(b)), bits, least)
    if before.shape == found.shape:
        allowed = allowed + unit(before.double().numpy(), 23, -149)
    return bool((np.abs(a - b) <= allowed).all())


def same(folder: Path, wanted: Tensors, model: Path, units: int = 1) -> None:
    """Assert that `folder` holds what PEFT merged, in the dtypes of `model`."""
    found, before = load(folder), load(model)
    assert set(found) == set(before)
    differing = 0
    for name, tensor in found.items():
        assert within(units, tensor, wanted[name], before[name]), name
        differing += tensor.shape != before[name].shape or bool((tensor != before[name]).any())
    assert differing
