"""A PEFT LoRA folder → a GGUF adapter that llama.cpp applies at run time.

Reference: convert_lora_to_gguf.py of llama.cpp. The runtime scales by adapter.lora.alpha / rank; what PEFT scales
otherwise (use_rslora, rank_pattern, alpha_pattern) is folded into alpha and B.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import FormatError
from ...core.i18n import _
from ...core.progress import Progress, silent
from .. import header
from . import layout, safetensors, vocabulary, writer

if TYPE_CHECKING:
    import gguf
    import numpy as np

_KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<name>[^.]+))?\.weight")
_REFUSED = (
    "use_dora", "modules_to_save", "fan_in_fan_out", "layer_replication", "trainable_token_indices",
    "target_parameters", "lora_bias", "alora_invocation_tokens", "megatron_config",
)  # fmt: skip
_REBASED = ("pissa", "olora", "loftq", "corda")
"""Initializations of PEFT that change the base model too."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two factors of one module: A (r, in), B (out, r), and PEFT's scale for their product."""

    place: layout.Place
    a: safetensors.Tensor
    b: safetensors.Tensor
    scale: float

    @property
    def rank(self) -> int:
        """r, the rank."""
        return self.a.shape[0]


def convert(adapter: Path, base: Path | None, target: Path, progress: Progress = silent) -> None:
    """Write the PEFT LoRA adapter in the folder `adapter` as GGUF (F32) to `target`.

    `base` is the model that it was trained on, a Hugging Face folder or a GGUF file, for the sizes of its heads; None
    takes the folder that adapter_config.json names. Raises FormatError for anything that would not have the same
    effect at run time, CapacityError for a full disk.
    """
    config = vocabulary.load_json(adapter / "adapter_config.json")
    _refuse(config, adapter)
    base = base or _named_base(config, adapter)
    sizes = _sizes(base)
    pairs = _pairs(_tensors(adapter), config, sizes, adapter)
    if not any(safetensors.read(pair.b).any() and safetensors.read(pair.a).any() for pair in pairs):
        raise _empty(adapter)
    alpha = pairs[0].scale * pairs[0].rank
    outputs = [output for pair in pairs for output in _outputs(pair, alpha, sizes.head_dim)]
    describe = partial(_describe, name=adapter.resolve().name, base=base.resolve().name, alpha=alpha)
    writer.write(target, "llama", describe, outputs, progress)


def base_sizes(adapter: Path, base: Path | None) -> layout.Sizes:
    """Give the sizes of the base model, found as `convert` finds it. Raises FormatError."""
    return _sizes(base or _named_base(vocabulary.load_json(adapter / "adapter_config.json"), adapter))


def _refuse(config: Mapping[str, Any], adapter: Path) -> None:
    """Refuse the kinds of adapter that GGUF cannot express, by the name of their setting."""
    problem = next((name for name in _REFUSED if config.get(name)), None)
    start = config.get("init_lora_weights")
    if config.get("peft_type", "LORA") != "LORA":
        problem = f"peft_type {config['peft_type']}"
    elif isinstance(start, str) and start.lower().startswith(_REBASED):
        problem = f"init_lora_weights {start}"
    elif config.get("bias", "none") != "none":
        problem = f"bias {config['bias']}"
    elif not all(_plain(config.get(name)) for name in ("rank_pattern", "alpha_pattern")):
        problem = "rank_pattern, alpha_pattern"
    if problem:
        raise FormatError(
            _("{adapter} uses {problem}, which a GGUF adapter cannot hold.").format(adapter=adapter, problem=problem),
            _("Merge it into its base model instead."),
        )


def _plain(patterns: Any) -> bool:
    """Say whether these are module names; any other regular expression of a stranger is not run on trust."""
    return patterns is None or (
        isinstance(patterns, dict) and all(re.fullmatch(r"\^?[\w.\\]+", pattern) for pattern in patterns)
    )


def _named_base(config: Mapping[str, Any], adapter: Path) -> Path:
    name = str(config.get("base_model_name_or_path") or "")
    for path in (adapter / name, Path(name)) if name else ():
        if (path / "config.json").is_file() or path.is_file():
            return path
    raise FormatError(
        _("The base model of {adapter}, {name}, is not on this machine.").format(adapter=adapter, name=name or "?"),
        _("Name the base model's folder or GGUF file."),
    )


def _sizes(base: Path) -> layout.Sizes:
    if base.is_dir():
        return layout.sizes(vocabulary.load_json(base / "config.json"), base / "config.json")
    return layout.from_gguf(header.read(base))


def _tensors(adapter: Path) -> Mapping[str, safetensors.Tensor]:
    path = adapter / "adapter_model.safetensors"
    if path.is_file():
        return safetensors.whole(path)
    if (adapter / "adapter_model.bin").is_file():
        raise FormatError(
            _("{adapter} holds adapter_model.bin, a pickle, which vigtui does not read.").format(adapter=adapter),
            _("Save it as adapter_model.safetensors first."),
        )
    raise FormatError(
        _("{adapter} lacks adapter_model.safetensors.").format(adapter=adapter), _("Fetch the missing file.")
    )


def _pairs(
    tensors: Mapping[str, safetensors.Tensor], config: Mapping[str, Any], sizes: layout.Sizes, adapter: Path
) -> list[Pair]:
    sides: dict[str, dict[str, safetensors.Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        side = sides.setdefault(match["module"], {}) if match else {}
        if not match or match["side"] in side:
            raise _stray(adapter, key)
        side[match["side"]] = tensor
    if not sides:
        raise _empty(adapter)
    places = layout.weights(sizes)
    return [_pair(module, side, places, config, adapter) for module, side in sorted(sides.items())]


def _pair(
    module: str,
    side: Mapping[str, safetensors.Tensor],
    places: Mapping[str, layout.Place],
    config: Mapping[str, Any],
    adapter: Path,
) -> Pair:
    place, a, b = places.get(f"{module}.weight"), side.get("A"), side.get("B")
    if place is None or a is None or b is None or len(place.shape) != 2 or module == "model.embed_tokens":
        raise _stray(adapter, module)
    out, inner = place.shape
    if (
        len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or 0 in a.shape
        or a.shape[1] != inner or (out is not None and b.shape[0] != out)
    ):  # fmt: skip
        raise FormatError(
            _("{adapter}: {module} has {a} and {b}, the base model {out} × {inner}.").format(
                adapter=adapter, module=module, a=a.shape, b=b.shape, out=out, inner=inner
            ),
            _("The adapter belongs to another base model."),
        )
    return Pair(place, a, b, _scale(module, a.shape[0], config, adapter))


def _scale(module: str, rank: int, config: Mapping[str, Any], adapter: Path) -> float:
    """Give PEFT's factor of B·A: alpha / r, or alpha / √r with use_rslora."""
    expected = _pattern(config.get("rank_pattern"), module, config.get("r"))
    alpha = _pattern(config.get("alpha_pattern"), module, config.get("lora_alpha"))
    if expected not in (None, rank) or not isinstance(alpha, int | float) or not alpha > 0:
        raise FormatError(
            _("{adapter}: {module} has rank {rank}, adapter_config.json says r {r}, lora_alpha {alpha}.").format(
                adapter=adapter, module=module, rank=rank, r=expected, alpha=alpha
            ),
            _("The weights do not belong to this adapter_config.json: fetch both again."),
        )
    return alpha / (sqrt(rank) if config.get("use_rslora") else rank)


def _pattern(patterns: Any, module: str, default: Any) -> Any:
    """Give the value of the first pattern that `module` ends with, as PEFT's get_pattern_key does."""
    for pattern, value in (patterns or {}).items():
        if f".{module}".endswith(f".{pattern.removeprefix('^').replace(chr(92), '')}"):
            return value
    return default


def _outputs(pair: Pair, alpha: float, head_dim: int) -> Iterable[writer.Output]:
    factor = pair.scale * pair.rank / alpha

    def right() -> "Iterable[np.ndarray]":
        b = safetensors.read(pair.b)
        yield (layout.permute(b, head_dim) if pair.place.heads else b) * b.dtype.type(factor)

    yield writer.Output(f"{pair.place.name}.lora_a", "F32", pair.a.shape, lambda: iter([safetensors.read(pair.a)]))
    yield writer.Output(f"{pair.place.name}.lora_b", "F32", pair.b.shape, lambda: iter(right()))


def _describe(out: "gguf.GGUFWriter", name: str, base: str, alpha: float) -> None:
    out.add_type("adapter")
    out.add_name(name)
    out.add_base_model_count(1)
    out.add_base_model_name(0, base)
    out.add_string("adapter.type", "lora")
    out.add_float32("adapter.lora.alpha", alpha)


def _stray(adapter: Path, name: str) -> FormatError:
    return FormatError(
        _("{adapter}: {name} has no place in a GGUF adapter.").format(adapter=adapter, name=name),
        _("Merge it into its base model instead."),
    )


def _empty(adapter: Path) -> FormatError:
    return FormatError(
        _("{adapter} is empty: it changes nothing.").format(adapter=adapter),
        _("It was saved wrongly; fetch another revision or train it again."),
    )
