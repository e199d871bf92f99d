"""Meta's own LLaMA checkpoints (consolidated.NN.pth, params.json, tokenizer.model) ↔ Hugging Face folders.

Reference: the names, axes and permutation of transformers' convert_llama_weights_to_hf.py, and llama/model.py of Meta.
Weights keep their type and their bits; they are read and written in blocks of rows.
"""

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import FormatError, UsageError
from ...core.i18n import _
from ...core.progress import Progress, silent
from .. import document
from . import parallel, params, publish, shards, torchzip, vocabulary, weights
from .names import EMBEDDING, GATE, Place, places
from .params import Sizes
from .safetensors import FLOATS, Tensor

if TYPE_CHECKING:
    import numpy as np

_DERIVED = re.compile(r"(layers\.\d+\.attention\.inner_attention\.)?rope\.freqs|freqs_cis")
_FILES = {4096: 1, 5120: 2, 6656: 4, 8192: 8}
"""Hidden size → files in Meta's releases."""


def to_hf(source: Path, target: Path, progress: Progress = silent, context: int | None = None) -> tuple[str, ...]:
    """Write Meta's checkpoint in the folder `source` as a Hugging Face folder `target`; give sentences of notice.

    `context` in tokens is not in the checkpoint: without it that of the release which params.json looks like.
    Memory: some 100 MB. Raises FormatError for what is damaged or no LLaMA, UsageError when `target` is taken,
    CapacityError for a full disk.
    """
    files = _files(source)
    _verify(source, progress)
    held = [torchzip.tensors(file) for file in files]
    sizes, axis = _measured(params.read(source / "params.json"), held, source)
    words = _tokenizer(source)
    pieces = vocabulary.read(words.parent, sizes.vocabulary, {})
    found = [(place, _joined(place, held, source)) for place in places(sizes, axis)]
    _refuse_left(held, {place.meta for place, _tensor in found}, source)
    outputs = [_whole(place, tensor, sizes.head_dim) for place, tensor in found]
    assumed = context or params.context(sizes)
    with publish.folder(target) as folder:
        shards.safetensors(folder, outputs, _counter(progress, len(outputs)))
        params.write_config(folder, sizes, outputs[0].dtype, pieces.ids, assumed)
        shutil.copyfile(words, folder / "tokenizer.model")
    notice = _("params.json does not tell the context length: {context} tokens were assumed.")
    return (*pieces.notices, *(() if context else (notice.format(context=assumed),)))


def from_hf(source: Path, target: Path, progress: Progress = silent, files: int | None = None) -> tuple[str, ...]:
    """Write the Hugging Face Llama in the folder `source` as Meta's checkpoint `target`; give sentences of notice.

    `files` is the number of consolidated.NN.pth, by default that of Meta's release of this size. Memory: some 100 MB.
    Raises FormatError for what the form cannot express, UsageError for a number of files that does not divide the
    weights or when `target` is taken, CapacityError for a full disk.
    """
    sizes, tensors = params.from_config(source / "config.json"), weights.index(source)
    rows, inner = (tensors[name].shape[:1] if name in tensors else () for name in (EMBEDDING.hf, GATE.hf))
    sizes = replace(sizes, vocabulary=sum(rows), feed_forward=sum(inner))
    words = _tokenizer(source)
    found = [(place, _single(place, tensors, source)) for place in places(sizes)]
    left = tensors.keys() - {place.hf for place, _tensor in found} - {"lm_head.weight"}
    if strange := sorted(name for name in left if not name.endswith("rotary_emb.inv_freq")):
        raise _stray(source, strange[0])
    count, notices = _count(files, sizes)
    with publish.folder(target) as folder:
        report = _counter(progress, len(found) * count)
        for n in range(count):
            outputs = [_part(place, tensor, sizes.head_dim, n, count) for place, tensor in found]
            shards.archive(folder / f"consolidated.{n:02}.pth", outputs, report)
        params.write(folder / "params.json", sizes)
        shutil.copyfile(words, folder / "tokenizer.model")
    return notices


def _files(source: Path) -> list[Path]:
    """Give consolidated.00.pth and those that follow it, none missing between them."""
    files = sorted(source.glob("consolidated.*.pth"))
    expected = [source / f"consolidated.{n:02}.pth" for n in range(max(1, len(files)))]
    lacking = [path for path in (*expected, source / "params.json") if not path.is_file()]
    if lacking:
        raise FormatError(
            _("{folder} lacks {name}.").format(folder=source, name=lacking[0].name), _("Fetch the missing file.")
        )
    return files


def _tokenizer(source: Path) -> Path:
    """Give tokenizer.model, which Meta put beside the folders of the sizes. Raises FormatError for that of Llama 3."""
    found = [folder / "tokenizer.model" for folder in (source, source.resolve().parent)]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        raise FormatError(
            _("{folder} lacks {name}.").format(folder=source, name="tokenizer.model"), _("Fetch the missing file.")
        )
    with path.open("rb") as file:
        if file.read(1) != b"\n":
            raise FormatError(
                _("{path} is no SentencePiece model: that of Llama 3 cannot be converted.").format(path=path),
                _("Pull the Hugging Face form of this model."),
            )
    return path


def _verify(source: Path, progress: Progress) -> None:
    """Compare the files with checklist.chk, lines of md5 and name, where it came with them."""
    listing = source / "checklist.chk"
    if not listing.is_file():
        return
    with listing.open("rb") as file:
        text = file.read(document.LIMIT).decode("utf-8", "replace")
    sums = re.findall(r"^([0-9a-f]{32})\s+\*?([\w.-]+)$", text, re.MULTILINE)
    for done, (expected, name) in enumerate(sums):
        progress(_("verify"), done, len(sums))
        path = source / name
        if not path.is_file():
            raise FormatError(
                _("{folder} lacks {name}.").format(folder=source, name=name), _("Fetch the missing file.")
            )
        with path.open("rb") as file:
            found = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
        if found != expected:
            raise FormatError(
                _("{path} is not the file that checklist.chk describes: its md5 differs.").format(path=path),
                _("Fetch it again."),
            )


def _measured(sizes: Sizes, held: Sequence[Mapping[str, Tensor]], source: Path) -> tuple[Sizes, int]:
    """Give the sizes with what only the weights tell, and the axis along which the files share the embeddings.

    Until Llama 2 that is the columns, since Llama 3 the rows.
    """
    embedding = held[0].get(EMBEDDING.meta)
    axis = 0 if len(held) > 1 and embedding and embedding.shape[1:] == (sizes.hidden,) else 1
    rows = _joined(replace(EMBEDDING, axis=axis), held, source).shape[0]
    inner = _joined(GATE, held, source).shape[0]
    return replace(sizes, vocabulary=rows, feed_forward=inner), axis


def _joined(place: Place, held: Sequence[Mapping[str, Tensor]], source: Path) -> parallel.Joined:
    """Give the weight's parts as one, after checking that they fit together."""
    parts = [tensors[place.meta] for tensors in held if place.meta in tensors]
    if len(parts) < len(held) or not parts:
        raise FormatError(
            _("{source}: {name} is missing.").format(source=source, name=place.meta),
            _("The files do not belong together: fetch them again."),
        )
    first, axis = parts[0], place.axis
    alike = all((len(part.shape), part.dtype) == (len(first.shape), first.dtype) for part in parts)
    alike = alike and first.dtype in FLOATS
    if axis is None:
        same = alike and all(_bytes(part) == _bytes(first) for part in parts[1:])
        found = parallel.Joined((first,))
    else:
        same = alike and len(first.shape) == 2 and len({part.shape[1 - axis] for part in parts}) == 1
        found = parallel.Joined(tuple(parts), axis)
    if not same or (place.shape and found.shape != place.shape):
        raise _misfit(source, place.meta, place.shape, parts)
    return found


def _bytes(tensor: Tensor) -> bytes:
    with tensor.path.open("rb") as file:
        file.seek(tensor.begin)
        return file.read(min(tensor.end - tensor.begin, parallel.LIMIT))


def _single(place: Place, tensors: Mapping[str, Tensor], source: Path) -> parallel.Joined:
    """Give the weight of a Hugging Face folder; the output is the embedding where they are tied."""
    tensor = tensors.get(place.hf)
    if tensor is None and place.hf == "lm_head.weight":
        tensor = tensors.get(EMBEDDING.hf)
    if tensor is None or tensor.shape != place.shape or tensor.dtype not in FLOATS:
        raise _misfit(source, place.hf, place.shape, [tensor] if tensor else [])
    return parallel.Joined((tensor,))


def _refuse_left(held: Sequence[Mapping[str, Tensor]], known: set[str], source: Path) -> None:
    """Refuse a checkpoint with more in it than what a LLaMA has, or can be computed from its sizes."""
    names = {name for tensors in held for name in tensors} - known
    if left := sorted(name for name in names if not _DERIVED.fullmatch(name)):
        raise _stray(source, left[0])


def _whole(place: Place, tensor: parallel.Joined, head_dim: int) -> shards.Written:
    change = partial(_halves, head_dim) if place.turned else None
    group = head_dim if place.turned else 1
    pieces = partial(parallel.blocks, tensor, 0, tensor.shape[0], group=group, change=change)
    return shards.Written(place.hf, tensor.dtype, place.shape, pieces)


def _part(place: Place, tensor: parallel.Joined, head_dim: int, n: int, count: int) -> shards.Written:
    """Give the share of the file `n` of `count` in a weight."""
    shape, start, stop, columns = list(place.shape), 0, place.shape[0], slice(None)
    if place.axis is not None:
        share = shape[place.axis] = place.shape[place.axis] // count
        if place.axis == 0:
            start, stop = n * share, (n + 1) * share
        else:
            columns = slice(n * share, (n + 1) * share)
    change = partial(_neighbours, head_dim) if place.turned else None
    group = head_dim if place.turned else 1
    pieces = partial(parallel.blocks, tensor, start, stop, columns, group, change)
    return shards.Written(place.meta, tensor.dtype, tuple(shape), pieces)


def _halves(head_dim: int, rows: "np.ndarray") -> "np.ndarray":
    """Reorder the rows of whole heads from the neighbouring pairs that Meta's rope turns to halves of a head."""
    return rows.reshape(-1, head_dim // 2, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _neighbours(head_dim: int, rows: "np.ndarray") -> "np.ndarray":
    """Reorder the rows of whole heads from halves of a head to neighbouring pairs."""
    return rows.reshape(-1, 2, head_dim // 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _count(files: int | None, sizes: Sizes) -> tuple[int, tuple[str, ...]]:
    """Give the number of files, and what to say when it is not the usual one."""
    usual = files or _FILES.get(sizes.hidden, 1)
    shared = (sizes.heads, sizes.kv_heads, sizes.hidden, sizes.feed_forward, sizes.vocabulary)
    if usual > 0 and not any(size % usual for size in shared):
        return usual, ()
    if files is None:
        return 1, (_("The weights do not divide into {count} files: they are in one.").format(count=usual),)
    raise UsageError(
        _("The weights do not divide into {count} files.").format(count=files), _("Write them in one file.")
    )


def _counter(progress: Progress, total: int) -> shards.Report:
    """Give a function that reports one more tensor at each call."""
    done = 0
    progress(_("convert"), done, total)

    def report() -> None:
        nonlocal done
        done += 1
        progress(_("convert"), done, total)

    return report


def _misfit(source: Path, name: str, expected: tuple[int, ...], parts: list[Tensor]) -> FormatError:
    found = " + ".join(f"{part.shape} {part.dtype}" for part in parts)
    return FormatError(
        _("{source}: {name} should have the shape {expected}, not {found}.").format(
            source=source, name=name, expected=expected or "?", found=found or None
        ),
        _("The files do not belong together, or one is missing: fetch them again."),
    )


def _stray(source: Path, name: str) -> FormatError:
    return FormatError(
        _("{source}: {name} has no place in a Llama.").format(source=source, name=name),
        _("Pull a GGUF build of this model, or run it with the transformers backend."),
    )
