"""A LoRA adapter as PEFT or one of its ancestors left it in a folder: which tensors change which module, how much.

Layout: peft/utils/save_and_load.py and tuners/lora of huggingface/peft; the folders of Chinese-Vicuna have no
adapter_config.json and keep the adapter in pytorch_model.bin.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from ...core.errors import FormatError
from ...core.i18n import _
from .. import document
from ..convert import safetensors, torchzip
from ..convert.safetensors import Tensor
from . import keys, pattern, setting

SETTINGS = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "pytorch_model.bin")
"""Where the weights may be. Trainers of 2023 left an empty adapter_model.bin beside the real pytorch_model.bin."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The factors of one module, A (r, in) and B (out, r), and PEFT's scale for their product.

    For an embedding A is (r, tokens) and B (width, r). `magnitude` (out,) makes it a DoRA; `bias` (out,) is added to
    the module's own, with the same scale.
    """

    module: str
    a: Tensor
    b: Tensor
    scale: float
    embedding: bool = False
    magnitude: Tensor | None = None
    bias: Tensor | None = None

    @property
    def rank(self) -> int:
        """r, the rank."""
        return self.a.shape[0]


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter changes. `replaced` holds whole parameters by their names in the base model, `rows` those of
    single tokens by module: (ids, tensor of as many rows)."""

    folder: Path
    config: Mapping[str, Any]
    pairs: tuple[Pair, ...]
    replaced: Mapping[str, Tensor]
    rows: Mapping[str, tuple[tuple[int, ...], Tensor]]
    files: tuple[Path, ...]

    @property
    def base(self) -> str:
        """The base model that it names: a path or a repository, or nothing."""
        return str(self.config.get("base_model_name_or_path") or "")


def read(folder: Path, alpha: float | None = None) -> Adapter:
    """Give the adapter in `folder`; `alpha` is what an adapter without adapter_config.json does not say.

    Raises FormatError for a damaged or empty one and for kinds that are no sum of matrices, UsageError when alpha is
    missing.
    """
    path = folder / SETTINGS
    config = document.read(path) if path.is_file() else {}
    setting.refuse(config, folder)
    weights, tensors = _tensors(folder)
    modules, replaced = _sorted(tensors, folder)
    pairs = _pairs(modules, config, alpha, folder)
    adapter = Adapter(
        folder, config, pairs, replaced, _rows(modules, config, folder), (weights, *([path] if path.is_file() else []))
    )
    _complete(adapter)
    return adapter


def stray(adapter: Path, names: Iterable[str], hint: str) -> FormatError:
    """Give the error for tensors that have no place: nothing of an adapter is dropped in silence."""
    listed = list(names)
    text = ", ".join(listed[:5]) + (", …" if len(listed) > 5 else "")
    message = _("{adapter}: {count} of its tensors have no place: {names}.")
    return FormatError(message.format(adapter=adapter, count=len(listed), names=text), hint)


def empty(adapter: Path) -> FormatError:
    """Give the error for an adapter without effect."""
    return FormatError(
        _("{adapter} is empty: it changes nothing.").format(adapter=adapter),
        _("It was saved wrongly; fetch another revision or train it again."),
    )


def _tensors(folder: Path) -> tuple[Path, Mapping[str, Tensor]]:
    """Give the file with the weights and its tensors: the first that is not empty."""
    found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not found:
        raise FormatError(
            _("{adapter} lacks {name}.").format(adapter=folder, name=WEIGHTS[0]), _("Fetch the missing file.")
        )
    for path in found:
        tensors = safetensors.whole(path) if path.suffix == ".safetensors" else _pickled(path)
        if tensors:
            return path, tensors
    raise empty(folder)


def _pickled(path: Path) -> Mapping[str, Tensor]:
    from .. import checkpoint  # 10 ms, of which other adapters have no use

    return {} if checkpoint.read(path).empty else torchzip.tensors(path)


def _sorted(tensors: Mapping[str, Tensor], folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Give (module → part → tensor, parameter → tensor), each part of a module once."""
    modules: dict[str, dict[str, Tensor]] = {}
    replaced: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        module, part = keys.place(key)
        if part == keys.IGNORED:
            continue
        home, name = (replaced, module) if part == keys.REPLACED else (modules.setdefault(module, {}), part)
        if not part or name in home:
            raise stray(folder, [key[: keys.LONGEST]], _("Its names are not those of PEFT: fetch another revision."))
        home[name] = tensor
    return modules, replaced


def _pairs(
    modules: Mapping[str, Mapping[str, Tensor]], config: Mapping[str, Any], alpha: float | None, folder: Path
) -> tuple[Pair, ...]:
    found = {module: parts for module, parts in sorted(modules.items()) if set(parts) != {"token_adapter"}}
    source = folder / SETTINGS
    ranks = pattern.values(config.get("rank_pattern"), list(found), config.get("r"), source)
    stated = setting.alpha(config, alpha, folder) if found else None
    alphas = pattern.values(config.get("alpha_pattern"), list(found), stated, source)
    root = bool(config.get("use_rslora"))
    return tuple(_pair(module, parts, ranks[module], alphas[module], root, folder) for module, parts in found.items())


def _pair(module: str, parts: Mapping[str, Tensor], rank: Any, alpha: Any, root: bool, folder: Path) -> Pair:
    embedding = "lora_embedding_A" in parts or "lora_embedding_B" in parts
    names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    a, b = (parts.get(name) for name in names)
    left = set(parts) - {*names, "lora_magnitude_vector", "lora_B.bias"}
    if a is None or b is None or left:
        raise stray(folder, [f"{module}.{part}" for part in sorted(left or parts)], _incomplete())
    _check_shapes(module, a, b, folder)
    if (rank is not None and rank != a.shape[0]) or not setting.positive(alpha):
        raise FormatError(
            _("{adapter}: {module} has rank {rank}, adapter_config.json says r {r}, lora_alpha {alpha}.").format(
                adapter=folder, module=module, rank=a.shape[0], r=rank, alpha=alpha
            ),
            _("The weights do not belong to this adapter_config.json: fetch both again."),
        )
    scale = alpha / (sqrt(a.shape[0]) if root else a.shape[0])
    return Pair(module, a, b, scale, embedding, parts.get("lora_magnitude_vector"), parts.get("lora_B.bias"))


def _check_shapes(module: str, a: Tensor, b: Tensor, folder: Path) -> None:
    """Refuse what is no pair of matrices, and ranks that take more memory than the module itself."""
    matrices = len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[1] and 0 not in (*a.shape, *b.shape)
    if not matrices or a.shape[0] > max(a.shape[1], b.shape[0]):
        raise FormatError(
            _("{adapter}: {module} has the factors {a} and {b}, which are no LoRA.").format(
                adapter=folder, module=module, a=a.shape, b=b.shape
            ),
            _("Only matrices can be merged, not convolutions: fetch another revision."),
        )


def _rows(
    modules: Mapping[str, Mapping[str, Tensor]], config: Mapping[str, Any], folder: Path
) -> dict[str, tuple[tuple[int, ...], Tensor]]:
    """Give the single tokens that were trained, by the embedding they belong to."""
    found = {}
    for module, parts in modules.items():
        if tensor := parts.get("token_adapter"):
            ids = setting.tokens(config, module)
            if len(tensor.shape) != 2 or not ids or len(ids) != tensor.shape[0]:
                raise stray(folder, [f"{module}.token_adapter"], _incomplete())
            found[module] = (ids, tensor)
    return found


def _complete(adapter: Adapter) -> None:
    """Refuse an adapter that lacks what its settings promise, and one that changes nothing."""
    if not (adapter.pairs or adapter.replaced or adapter.rows):
        raise empty(adapter.folder)
    named, lacking = adapter.config.get("modules_to_save") or (), []
    for name in named if isinstance(named, list) else ():
        if not any(f".{parameter}".rpartition(".")[0].endswith(f".{name}") for parameter in adapter.replaced):
            lacking.append(str(name))
    if adapter.config.get("use_dora"):
        lacking += [f"{pair.module}.lora_magnitude_vector" for pair in adapter.pairs if pair.magnitude is None]
    if lacking:
        raise FormatError(
            _("{adapter} lacks weights that its settings name: {names}.").format(
                adapter=adapter.folder, names=", ".join(lacking[:5])
            ),
            _incomplete(),
        )


def effective(adapter: Adapter) -> bool:
    """Tell whether the adapter changes anything: it is read until a product that is not zero is found."""
    if adapter.replaced or adapter.rows or any(pair.magnitude for pair in adapter.pairs):
        return True
    return any(_changes(pair) for pair in adapter.pairs)


def _changes(pair: Pair) -> bool:
    return (_nonzero(pair.b) and _nonzero(pair.a)) or (pair.bias is not None and _nonzero(pair.bias))


def _nonzero(tensor: Tensor) -> bool:
    return any(piece.any() for piece in safetensors.chunks(tensor))


def _incomplete() -> str:
    return _("The adapter is incomplete or damaged: fetch it again.")
