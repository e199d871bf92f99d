"""What a GPTQ quantization starts from: whether it can be done, and what it takes."""

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ...core.errors import BackendError, FormatError, UsageError
from ...core.i18n import _
from .. import document
from ..convert import weights
from ..convert.safetensors import FLOATS, Tensor

BITS = (2, 3, 4, 8)
LONGEST = 2048
"""Tokens of the longest sample."""
_GROUPS = (16, 32, 64, 128, 256, 512, 1024)
BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
_WORD = 32
"""Weights that are packed together: rows and columns are multiples of it."""
_MODULES = ("gptqmodel", "torch", "transformers", "accelerate")
_PROCESS = 1_500_000_000
"""Bytes of a process that has imported gptqmodel."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model that can be quantized: its settings, all its tensors, and which of them become packed ones."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    linears: Mapping[str, Tensor]

    @property
    def context(self) -> int:
        """The longest sample in tokens."""
        values = (self.config.get(name) for name in ("max_position_embeddings", "n_positions", "seq_length"))
        return min([LONGEST, *(value for value in values if type(value) is int and value > 0)])


def require(bits: int, group_size: int, damp: float, samples: int) -> None:
    """Refuse what no source can be quantized with. Raises BackendError (not installed) or UsageError."""
    _require_library()
    _require_sizes(bits, group_size)
    if not 0 < damp < 1:
        raise UsageError(_("--damp takes a number between 0 and 1."), _("0.05 is usual; more where it fails."))
    if samples < 1:
        raise UsageError(_("At least one sample is needed."), _("128 are usual."))


def check(folder: Path, bits: int = 4, group_size: int = 128) -> Source:
    """Give the model in `folder` when gptqmodel can quantize it so, without importing it.

    Raises BackendError (not installed), UsageError (bits, group size, quantized already) or FormatError.
    """
    _require_library()
    _require_sizes(bits, group_size)
    if not (folder / "config.json").is_file():
        raise FormatError(
            _("{path} is no folder of a Hugging Face model.").format(path=folder),
            _("GPTQ starts from the unquantized model, as transformers saves it."),
        )
    config = document.optional(folder / "config.json")
    tensors = weights.index(folder)
    _require_plain(folder, config, tensors)
    require_known(config)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise FormatError(
            _("{folder} has no tokenizer, which reads the calibration text.").format(folder=folder),
            _("Fetch tokenizer.json or tokenizer.model from where the model is from."),
        )
    linears = {name: tensor for name, tensor in tensors.items() if _linear(name, tensor)}
    if not linears:
        raise FormatError(_("{path} holds no layers that can be quantized.").format(path=folder))
    _require_rows(folder, config, linears, group_size)
    return Source(folder, config, tensors, linears)


def needs(
    folder: Path, bits: int = 4, group_size: int = 128, samples: int = 128, characters: int | None = None
) -> tuple[int, int]:
    """Estimate what quantizing takes: (bytes of disk for the product and the work, bytes of memory). Raises as `check`.

    `characters` is the length of the calibration text, where it is known: a short one gives fewer samples. On a Llama
    of 117M parameters this was 5 % more memory and 20 % more disk than what was seen, in float32 on a CPU.
    """
    source = check(folder, bits, group_size)
    packed = sum(_packed(tensor, bits, group_size) for tensor in source.linears.values())
    rest = sum(size(tensor) for name, tensor in source.tensors.items() if name not in source.linears)
    width = max(tensor.shape[-1] for tensor in source.linears.values())
    hidden = source.config.get("hidden_size")
    tokens = min(samples * source.context, samples * source.context if characters is None else characters // 2)
    activations = 4 * tokens * (hidden if type(hidden) is int and hidden > 0 else width)
    torch = any(tensor.path.suffix != ".safetensors" for tensor in source.tensors.values())
    converted = sum(map(size, source.tensors.values())) if torch else 0
    layers: dict[str, int] = {}
    for name, tensor in source.linears.items():
        layer = BLOCK.search(name)
        layers[layer[0] if layer else ""] = layers.get(layer[0] if layer else "", 0) + 4 * prod(tensor.shape)
    memory = _PROCESS + 2 * rest + 3 * max(layers.values()) + 3 * 4 * width * width + 2 * activations
    return 4 * (packed + rest) + 2 * activations + converted, memory


def size(tensor: Tensor) -> int:
    """Give the bytes of a tensor."""
    return tensor.end - tensor.begin


def _packed(tensor: Tensor, bits: int, group: int) -> int:
    """Bytes of qweight, qzeros, scales and g_idx."""
    out, into = tensor.shape
    groups = into // group if group > 0 else 1
    return out * into * bits // 8 + groups * out * (16 + bits) // 8 + 4 * into


def _linear(name: str, tensor: Tensor) -> bool:
    """Whether this is the weight of a linear layer inside a block; routers and norms are left as they are."""
    if not name.endswith(".weight") or len(tensor.shape) != 2 or not BLOCK.search(name):
        return False
    return not re.search(r"norm|\.ln_|embed|\.gate\.weight$|router", name)


def _require_library() -> None:
    lacking = [name for name in _MODULES if importlib.util.find_spec(name) is None]
    if lacking:
        raise BackendError(
            _("GPTQ needs what is not installed: {names}.").format(names=", ".join(lacking)),
            'pip install "vigtui[gptq]"',
        )


def _require_sizes(bits: int, group_size: int) -> None:
    if bits not in BITS:
        raise UsageError(
            _("GPTQ has no {bits} bits.").format(bits=bits),
            _("Choose {choices}.").format(choices=", ".join(map(str, BITS))),
        )
    if group_size != -1 and (group_size < 1 or group_size % 16):
        raise UsageError(
            _("The group size {size} cannot be meant.").format(size=group_size),
            _("Choose 32, 64 or 128, or -1 for one group a row."),
        )


def _require_plain(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    if config.get("quantization_config") or any(name.endswith((".qweight", ".weight_packed")) for name in tensors):
        raise UsageError(
            _("{path} is quantized already.").format(path=folder),
            _("Start from the model that it was made from."),
        )
    odd = next((t for t in tensors.values() if t.dtype not in FLOATS and t.dtype.startswith(("F", "I8"))), None)
    if odd:
        raise FormatError(
            _("{path} stores {name} as {dtype}, which cannot be converted.").format(
                path=odd.path, name=odd.name, dtype=odd.dtype
            ),
            _("Start from weights in F32, F16 or BF16."),
        )


def require_known(config: Mapping[str, Any]) -> None:
    """Refuse an architecture that gptqmodel does not quantize. Raises FormatError."""
    known, type = architectures(), str(config.get("model_type", ""))
    if known and type not in known:
        raise FormatError(
            _("gptqmodel does not know the architecture {name}.").format(name=type or "?"),
            _("Make a GGUF instead: vigtui quantize MODEL -q Q4_K_M"),
        )


def architectures() -> frozenset[str]:
    """Give every model_type that the installed gptqmodel quantizes, read from its source: importing it takes 4 s.

    Empty when its source has another form; then the library itself says what it cannot do.
    """
    spec = importlib.util.find_spec("gptqmodel")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(place) / "models" / "auto.py"
        if file.is_file():
            return frozenset(_keys(ast.parse(file.read_text(encoding="utf-8"))))
    return frozenset()


def _keys(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Name) and target.id == "MODEL_MAP":
                keys = getattr(node.value, "keys", []) if isinstance(node, ast.Assign) else []
                yield from (str(key.value) for key in keys if isinstance(key, ast.Constant))
            elif isinstance(target, ast.Subscript) and getattr(target.value, "id", "") == "MODEL_MAP":
                yield str(getattr(target.slice, "value", ""))


def _require_rows(folder: Path, config: Mapping[str, Any], linears: Mapping[str, Tensor], group_size: int) -> None:
    """Refuse rows that do not fill their words or groups; gpt2 stores its weights the other way round."""
    axis = 0 if config.get("model_type") == "gpt2" else 1
    rows = {tensor.shape[axis]: name for name, tensor in linears.items()}
    columns = {tensor.shape[1 - axis]: name for name, tensor in linears.items()}
    for length, name in {**columns, **rows}.items():
        if length % _WORD:
            raise FormatError(
                _("{name} in {path} measures {length}, and GPTQ packs multiples of {word}.").format(
                    name=name, path=folder, length=length, word=_WORD
                ),
                _("Make a GGUF instead: vigtui quantize MODEL -q Q4_K_M"),
            )
    fitting = [group for group in _GROUPS if all(length % group == 0 for length in rows)]
    for length, name in rows.items():
        if group_size > 0 and length % group_size:
            raise UsageError(
                _("{name} has rows of {length}, which do not divide into groups of {group}.").format(
                    name=name, length=length, group=group_size
                ),
                _("These group sizes fit: {sizes}.").format(sizes=", ".join(map(str, [*fitting, -1]))),
            )
