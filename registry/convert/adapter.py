"""A PEFT LoRA folder → a GGUF adapter that llama.cpp applies at run time.

Reference: convert_lora_to_gguf.py of llama.cpp. The runtime scales by adapter.lora.alpha / rank; what PEFT scales
otherwise (use_rslora, rank_pattern, alpha_pattern) is folded into alpha and B.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import FormatError
from ...core.i18n import _
from ...core.progress import Progress, silent
from .. import document, header
from ..merge import adapter as reader
from ..merge.adapter import Adapter, Pair
from . import architecture, layout, safetensors, writer
from .layout import Place

if TYPE_CHECKING:
    import gguf
    import numpy as np

_REFUSED = ("use_dora", "modules_to_save", "fan_in_fan_out", "trainable_token_indices", "lora_bias")


@dataclass(frozen=True, slots=True)
class Base:
    """What of the base model decides the file: `name` is general.architecture, `places` by Hugging Face's names."""

    name: str
    places: Mapping[str, Place]
    head_dim: int


def convert(
    adapter: Path, base: Path | None, target: Path, progress: Progress = silent, alpha: float | None = None
) -> None:
    """Write the PEFT LoRA adapter in the folder `adapter` as GGUF (F32) to `target`.

    `base` is the model that it was trained on, a Hugging Face folder or a GGUF file, for the names and order of its
    weights; None takes the folder that adapter_config.json names. `alpha` is for an adapter without that file. Raises
    FormatError for anything that would not have the same effect at run time, UsageError when alpha is missing,
    CapacityError for a full disk.
    """
    found = reader.read(adapter, alpha)
    refuse(found)
    path = base or _named_base(found)
    model = _base(path)
    pairs = [(pair, _place(pair, model, adapter)) for pair in found.pairs]
    if not reader.effective(found):
        raise reader.empty(adapter)
    total = pairs[0][0].scale * pairs[0][0].rank
    outputs = [output for pair, place in pairs for output in _outputs(pair, place, total, model.head_dim)]
    describe = partial(_describe, name=adapter.resolve().name, base=path.resolve().name, alpha=total)
    writer.write(target, model.name, describe, outputs, progress)


def base_sizes(adapter: Path, base: Path | None) -> Base:
    """Give what of the base model decides the file, found as `convert` finds it. Raises FormatError."""
    return _base(base or _named_base(reader.read(adapter)))


def files(adapter: Path) -> tuple[Path, ...]:
    """Give the files that decide what the adapter does. Raises FormatError."""
    return reader.read(adapter).files


def refuse(adapter: Adapter) -> None:
    """Raise FormatError for an adapter that GGUF cannot express, by its setting or the tensors that show it."""
    config = adapter.config
    problem = next((name for name in _REFUSED if config.get(name)), None)
    if config.get("bias", "none") != "none":
        problem = f"bias {config['bias']}"
    if problem:
        raise FormatError(
            _("{adapter} uses {problem}, which a GGUF adapter cannot hold.").format(
                adapter=adapter.folder, problem=problem
            ),
            _("Merge it into its base model instead."),
        )
    left = [*adapter.replaced, *(f"{module}.token_adapter" for module in adapter.rows)]
    left += [f"{pair.module}.lora_magnitude_vector" for pair in adapter.pairs if pair.magnitude]
    left += [f"{pair.module}.lora_B.bias" for pair in adapter.pairs if pair.bias]
    left += [f"{pair.module}.lora_embedding_A" for pair in adapter.pairs if pair.embedding]
    if left:
        raise _stray(adapter.folder, left)


def _named_base(adapter: Adapter) -> Path:
    name = adapter.base
    for path in (adapter.folder / name, Path(name)) if name else ():
        if (path / "config.json").is_file() or path.is_file():
            return path
    raise FormatError(
        _("The base model of {adapter}, {name}, is not on this machine.").format(
            adapter=adapter.folder, name=name or "?"
        ),
        _("Name the base model's folder or GGUF file."),
    )


def _base(path: Path) -> Base:
    if path.is_dir():
        design = architecture.find(document.read(path / "config.json"), path / "config.json")
        return Base(design.name, design.places, design.head_dim)
    sizes = layout.from_gguf(header.read(path))
    return Base(sizes.architecture, layout.weights(sizes), sizes.head_dim)


def _place(pair: Pair, base: Base, adapter: Path) -> Place:
    place = base.places.get(f"{pair.module}.weight")
    if place is None or len(place.shape) != 2 or place.name == "token_embd.weight":
        raise _stray(adapter, [pair.module])
    out, inner = place.shape
    if pair.a.shape[1] != inner or (out is not None and pair.b.shape[0] != out):
        raise FormatError(
            _("{adapter}: {module} has {a} and {b}, the base model {out} × {inner}.").format(
                adapter=adapter, module=pair.module, a=pair.a.shape, b=pair.b.shape, out=out, inner=inner
            ),
            _("The adapter belongs to another base model."),
        )
    return place


def _outputs(pair: Pair, place: Place, alpha: float, head_dim: int) -> Iterable[writer.Output]:
    factor = pair.scale * pair.rank / alpha

    def right() -> "Iterable[np.ndarray]":
        b = _ordered(safetensors.read(pair.b), place, head_dim)
        yield b * b.dtype.type(factor)

    yield writer.Output(f"{place.name}.lora_a", "F32", pair.a.shape, lambda: iter([safetensors.read(pair.a)]))
    yield writer.Output(f"{place.name}.lora_b", "F32", pair.b.shape, lambda: iter(right()))


def _ordered(b: "np.ndarray", place: Place, head_dim: int) -> "np.ndarray":
    """Give B (out, r) with its rows in the order of the weight's own in GGUF."""
    import numpy as np  # 80 ms: only when weights are read

    if place.fused:
        return np.concatenate([b[first : first + count] for first, count in place.fused.ranges()])
    return layout.permute(b, head_dim) if place.heads else b


def _describe(out: "gguf.GGUFWriter", name: str, base: str, alpha: float) -> None:
    out.add_type("adapter")
    out.add_name(name)
    out.add_base_model_count(1)
    out.add_base_model_name(0, base)
    out.add_string("adapter.type", "lora")
    out.add_float32("adapter.lora.alpha", alpha)


def _stray(adapter: Path, names: Iterable[str]) -> FormatError:
    return reader.stray(adapter, names, _("A GGUF adapter cannot hold them: merge it into its base model instead."))
