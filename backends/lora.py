"""PEFT's LoRA adapters at run time: scale·B·A added to the output of linear layers, plain or quantized.

The base's weights stay as they are, so that adapters come, go and change their scale without a load.
"""

import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import FormatError
from ..core.i18n import _

if TYPE_CHECKING:
    import torch

_KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<name>[^.]+))?\.weight")
_REFUSED = (
    "use_dora", "modules_to_save", "layer_replication", "trainable_token_indices", "target_parameters", "lora_bias",
    "alora_invocation_tokens", "megatron_config",
)  # fmt: skip
_REBASED = ("pissa", "olora", "loftq", "corda")
"""Initializations of PEFT that change the base model too."""
_LIMIT = 16 << 20
_FILES = ("adapter_model.safetensors", "adapter_model.bin", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class Factors:
    """What an adapter adds to one module: A (r, in), B (out, r), and PEFT's scale for their product."""

    a: "torch.Tensor"
    b: "torch.Tensor"
    scale: float


class Adapters:
    """The adapters of a loaded `model`."""

    def __init__(self, model: Any) -> None:
        self._modules: dict[str, Any] = dict(model.named_modules())
        self._dtype, self._device = model.dtype, model.get_input_embeddings().weight.device
        self._read: dict[Path, Mapping[str, Factors]] = {}
        self._hooks: list[Any] = []
        self.active: tuple[tuple[Path, float], ...] = ()

    def set(self, adapters: Sequence[tuple[Path, float]]) -> bool:
        """Have these (folder, scale) active and no others; give whether that changes anything.

        Raises FormatError for an adapter that does not fit; those before then stay.
        """
        wanted = tuple((path, scale) for path, scale in adapters if scale)
        if wanted == self.active:
            return False
        for path, _scale in wanted:
            if path not in self._read:
                self._read[path] = self._fitting(path)
        names = dict.fromkeys(name for path, _scale in wanted for name in self._read[path])
        sums = {name: self._sum(name, wanted) for name in names}
        for hook in self._hooks:
            hook.remove()
        self._hooks = [self._modules[name].register_forward_hook(_adding(*pair)) for name, pair in sums.items()]
        self.active = wanted
        return True

    def _sum(self, name: str, wanted: Sequence[tuple[Path, float]]) -> "tuple[torch.Tensor, torch.Tensor]":
        """Give the sum of one module's adapters: side by side their factors are one pair, A (Σr, in), B (out, Σr)."""
        import torch

        parts = [(self._read[path][name], scale) for path, scale in wanted if name in self._read[path]]
        module = self._modules[name]
        device = next((one.device for one in (*module.parameters(), *module.buffers())), self._device)
        a = torch.cat([one.a for one, _scale in parts])
        b = torch.cat([one.b * (one.scale * scale) for one, scale in parts], 1)
        return a.to(device, self._dtype), b.to(device, self._dtype)

    def _fitting(self, path: Path) -> Mapping[str, Factors]:
        """Read an adapter and hold it against the model."""
        found = read(path)
        for name, one in found.items():
            module = self._modules.get(name)
            inner, outer = (getattr(module, side, None) for side in ("in_features", "out_features"))
            shape = (one.b.shape[0], one.a.shape[1])
            if module is None or (inner is not None and shape != (outer, inner)):
                raise FormatError(
                    _("The adapter {path} does not fit this model: {reason}.").format(
                        path=path,
                        reason=_("{module} is {a} × {b} there").format(module=name, a=shape[0], b=shape[1])
                        if module is not None
                        else _("it has no {module}").format(module=name),
                    ),
                    _("Use it with the base it was trained on."),
                )
        return found


def _adding(a: "torch.Tensor", b: "torch.Tensor") -> Callable[..., "torch.Tensor"]:
    def add(_module: Any, given: "tuple[torch.Tensor, ...]", out: "torch.Tensor") -> "torch.Tensor":
        return out + (given[0].to(a) @ a.T @ b.T).to(out)

    return add


def read(path: Path) -> Mapping[str, Factors]:
    """Give module name → factors of the PEFT LoRA adapter in the folder `path`, in float32. Raises FormatError."""
    config = _config(path)
    sides: dict[str, dict[str, Any]] = {}
    for key, tensor in _tensors(path).items():
        match = _KEY.fullmatch(key)
        if not match or tensor.ndim != 2:
            raise _refusal(path, key)
        sides.setdefault(match["module"], {})[match["side"]] = tensor.float()
    return {module: _factors(path, module, side, config) for module, side in sides.items()}


def _config(path: Path) -> dict[str, Any]:
    if path.is_file():
        raise FormatError(
            _("{path} is a GGUF adapter, which only llama.cpp applies.").format(path=path),
            _("Give the PEFT folder that it was made from."),
        )
    try:
        with (path / "adapter_config.json").open("rb") as file:
            config = json.loads(file.read(_LIMIT))
        if not isinstance(config, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(
            _("{path} holds no PEFT adapter that can be read.").format(path=path), _("Fetch it again.")
        ) from error
    _refuse(path, config)
    return config


def _refuse(path: Path, config: Mapping[str, Any]) -> None:
    problem = next((name for name in _REFUSED if config.get(name)), None)
    start = config.get("init_lora_weights")
    if config.get("peft_type", "LORA") != "LORA":
        problem = f"peft_type {config['peft_type']}"
    elif isinstance(start, str) and start.lower().startswith(_REBASED):
        problem = f"init_lora_weights {start}"
    elif config.get("bias", "none") != "none":
        problem = f"bias {config['bias']}"
    if problem:
        raise _refusal(path, problem)


def _refusal(path: Path, problem: str) -> FormatError:
    return FormatError(
        _("{adapter} uses {problem}, which cannot be applied at run time.").format(adapter=path, problem=problem),
        _("Merge it into its base model instead."),
    )


def _tensors(path: Path) -> Mapping[str, Any]:
    """Read the first file that holds tensors: trainers of 2023 left an empty adapter_model.bin beside the real one."""
    files = [path / name for name in _FILES if (path / name).is_file()]
    found = next((tensors for file in files if (tensors := _file(file))), None)
    if found is None:
        raise FormatError(
            _("{adapter} is empty: it changes nothing.").format(adapter=path),
            _("It was saved wrongly; fetch another revision or train it again."),
        )
    return found


def _file(path: Path) -> Mapping[str, Any]:
    """Read safetensors, or a PyTorch file with the unpickler that makes weights and nothing else."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        raise FormatError(
            _("The weights of the adapter {path} cannot be read: {reason}.").format(
                path=path, reason=str(error).strip().partition("\n")[0][:200]
            ),
            _("Fetch it again."),
        ) from error


def _factors(path: Path, module: str, side: Mapping[str, Any], config: Mapping[str, Any]) -> Factors:
    a, b = side.get("A"), side.get("B")
    if a is None or b is None or a.shape[0] != b.shape[1] or 0 in a.shape:
        raise FormatError(
            _("The adapter {path} is damaged: the factors of {module} do not belong together.").format(
                path=path, module=module
            ),
            _("Fetch it again."),
        )
    rank = a.shape[0]
    expected = _pattern(config.get("rank_pattern"), module, config.get("r"))
    alpha = _pattern(config.get("alpha_pattern"), module, config.get("lora_alpha"))
    if expected not in (None, rank) or not isinstance(alpha, int | float) or not alpha > 0:
        raise FormatError(
            _("{adapter}: {module} has rank {rank}, adapter_config.json says r {r}, lora_alpha {alpha}.").format(
                adapter=path, module=module, rank=rank, r=expected, alpha=alpha
            ),
            _("The weights do not belong to this adapter_config.json: fetch both again."),
        )
    return Factors(a, b, alpha / (sqrt(rank) if config.get("use_rslora") else rank))


def _pattern(patterns: Any, module: str, default: Any) -> Any:
    """Give the value of the first pattern that `module` ends with, as PEFT's get_pattern_key does."""
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if f".{module}".endswith(f".{pattern.removeprefix('^').replace(chr(92), '')}"):
            return value
    return default
