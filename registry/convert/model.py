"""A Hugging Face model folder → one GGUF file. Reference: convert_hf_to_gguf.py of llama.cpp, ggml/docs/gguf.md.

What differs between architectures is in architecture/, between tokenizers in vocabulary.py.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import FormatError, UsageError
from ...core.i18n import _
from ...core.progress import Progress, silent
from .. import document
from . import architecture, stream, vocabulary, weights, writer

if TYPE_CHECKING:
    import gguf

    from .safetensors import Tensor
    from .words import Vocabulary

FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7}
"""Our type → general.file_type (llama_ftype)."""


def convert(source: Path, target: Path, type: str = "f16", progress: Progress = silent) -> tuple[str, ...]:
    """Write the model in the folder `source` as GGUF to `target`; give sentences for the record's notices.

    `type` is f32, f16, bf16 or q8_0; norms and biases stay F32, rows that Q8_0 cannot hold are F16. Memory: about
    100 MB and the vocabulary. Raises UsageError for another type or a target that is part of the source, FormatError
    for what cannot be converted, CapacityError for a full disk.
    """
    if type not in FILE_TYPES:
        raise UsageError(
            _("There is no type {type}.").format(type=type),
            _("Choose one of {types}.").format(types=", ".join(FILE_TYPES)),
        )
    path = _described(source)
    config = document.read(path)
    design = architecture.find(config, path)
    tensors = weights.index(source)
    if any(name.endswith((".qweight", ".absmax", ".weight_scale")) for name in tensors):
        raise architecture.unsupported(path, _("its weights are quantized already"))
    _apart(target, source, tensors)
    found = _match(tensors, design, source)
    words = vocabulary.read(source, found[design.embedding].shape[0], config)
    outputs = [_output(tensor, design.places[name], design.head_dim, type) for name, tensor in found.items()]
    for name, values in (design.extras or {}).items():
        outputs.append(writer.Output(name, "F32", values.shape, partial(iter, (values,))))
    describe = partial(_describe, design=design, words=words, name=source.resolve().name, type=type)
    writer.write(target, design.name, describe, outputs, progress)
    return (*design.notices, *words.notices)


def _described(source: Path) -> Path:
    """Give the config.json of the model in `source`. Raises FormatError for another kind of thing, by its name."""
    path = source / "config.json"
    if path.is_file():
        return path
    if source.is_file():
        problem, hint = _("a file, not a model's folder"), _("Give the folder with config.json and the weights.")
    elif (source / "adapter_config.json").is_file():
        problem, hint = _("an adapter"), _("Merge it into its base model with `vigtui merge`.")
    elif (source / "params.json").is_file():
        problem, hint = _("a checkpoint of Meta"), _("Bring it into Hugging Face's form first, with `--to hf`.")
    else:
        problem, hint = _("without config.json"), _("Give the folder with config.json and the weights.")
    raise FormatError(_("{source} is {problem}.").format(source=source, problem=problem), hint)


def _apart(target: Path, source: Path, tensors: "Mapping[str, Tensor]") -> None:
    """Refuse to write over a file that is read."""
    if not target.exists():
        return
    read = {tensor.path for tensor in tensors.values()}
    read |= {path for path in source.iterdir() if path.suffix in (".json", ".model", ".jinja")}
    if target.is_dir() or any(path.exists() and path.samefile(target) for path in read):
        raise UsageError(
            _("{target} is a folder or a file of the source: it is not overwritten.").format(target=target),
            _("Choose another file name."),
        )


def _match(tensors: "Mapping[str, Tensor]", design: architecture.Design, source: Path) -> "dict[str, Tensor]":
    """Give each weight by the name of its place, after checking that all are there, have the right shape, and none is
    left."""
    held = {_name(name, design): tensor for name, tensor in tensors.items()}
    embedding = held.get(design.embedding)
    rows = embedding.shape[0] if embedding and embedding.shape else None
    found: dict[str, Tensor] = {}
    kinds = {_kind(name) for name in held}
    for name, place in design.places.items():
        if place.optional and _kind(name) not in kinds:
            continue
        expected = tuple(rows if n is None else n for n in place.shape)
        if name not in held or held[name].shape != expected:
            raise _misfit(source, name, held.get(name), expected)
        found[name] = held[name]
    left = [name for name in held if name not in found and not name.endswith(design.derived)]
    if left:
        raise FormatError(
            _("{source}: {name} has no place in a model of the kind {kind}.").format(
                source=source, name=left[0], kind=design.name
            ),
            _("Pull a GGUF build of this model, or run it with the transformers backend."),
        )
    return found


def _misfit(source: Path, name: str, tensor: "Tensor | None", expected: tuple[int | None, ...]) -> FormatError:
    problem = _("{source} lacks the weight {name}.").format(source=source, name=name)
    if tensor:
        problem = _("{source}: {name} should have the shape {expected}, not {found}.").format(
            source=source, name=name, expected=expected, found=tensor.shape
        )
    return FormatError(problem, _("The weights do not belong to this config.json: fetch both again."))


def _name(name: str, design: architecture.Design) -> str:
    """Give the name as the places have it: some checkpoints were saved without the outermost module."""
    return name if name in design.places or design.prefix + name not in design.places else design.prefix + name


def _kind(name: str) -> str:
    """Give the name without the number of its layer."""
    return re.sub(r"\.\d+\.", ".N.", name)


def _output(tensor: "Tensor", place: "architecture.Place", head_dim: int, type: str) -> writer.Output:
    kind = type.upper()
    if len(tensor.shape) == 1:
        kind = "F32"
    elif kind == "Q8_0" and tensor.shape[-1] % 32:
        kind = "F16"
    return writer.Output(place.name, kind, tensor.shape, partial(stream.pieces, tensor, place, head_dim))


def _describe(out: "gguf.GGUFWriter", design: architecture.Design, words: "Vocabulary", name: str, type: str) -> None:
    import gguf  # 0.2 s with numpy: only when a file is written

    out.add_name(name)
    out.add_file_type(FILE_TYPES[type])
    out.add_type("model")
    out.add_quantization_version(gguf.GGML_QUANT_VERSION)
    design.describe(out)
    words.describe(out)
