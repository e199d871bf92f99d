"""The files of 2023 (ggml, ggmf, ggjt 1 to 3) → GGUF, without quantizing again.

Reference for names and vocabulary: convert_llama_ggml_to_gguf.py of llama.cpp.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import FormatError, UsageError
from ...core.i18n import _
from ...core.progress import Progress, silent
from .. import document, ggml, header
from ..check import instead
from . import blocks, params, vocabulary, writer
from .names import Place, places
from .parallel import Joined
from .params import Sizes
from .safetensors import Tensor
from .words import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, Vocabulary

if TYPE_CHECKING:
    import gguf
    import numpy as np

_GUESSED = 5e-6
"""Epsilon between LLaMA's 1e-6 and Llama 2's 1e-5, as llama.cpp chose it."""
_PIECE = 4 << 20
"""Bytes of the file that are read at once, one row at least."""
_FILE_TYPES = {name: number for number, name in ggml.FTYPES.items()} | {"Q4_1_SOME_F16": 3}
"""Type → general.file_type (llama_ftype)."""
_SPECIAL = {0: ("<unk>", UNKNOWN), 1: ("<s>", CONTROL), 2: ("</s>", CONTROL)}
_FIRST = 259
"""The first token of LLaMA's vocabulary that is no special token and no byte; its score is 0, the next one's −1."""


def convert(
    source: Path,
    target: Path,
    *,
    gqa: int = 1,
    eps: float | None = None,
    context: int = 2048,
    metadata: Path | None = None,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Write the model `source` (with its parts .1, .2, … beside it) as GGUF to `target`; give sentences of notice.

    What the file does not say: `gqa`, query heads for each key head (1 takes what the shapes tell), `eps` of the norms,
    `context` in tokens; `metadata` is a folder with params.json or config.json, and with a tokenizer that replaces the
    vocabulary of the file. Memory: some 50 MB and the vocabulary. Raises FormatError for what is damaged or has no
    place in GGUF, UsageError for values that contradict the weights, CapacityError for a full disk.
    """
    heads = _heads(source)
    if target.exists() and any(part.path.samefile(target) for part in heads):
        raise UsageError(
            _("{path} would be overwritten by its own conversion.").format(path=target), _("Choose another name.")
        )
    if not 0 < (_GUESSED if eps is None else eps) < 1 or not 0 < context < 1 << 24:  # also false for NaN
        raise UsageError(
            _("Epsilon {eps} or context {context} cannot be meant.").format(eps=eps, context=context),
            _("Epsilon is 1e-6 for LLaMA and 1e-5 for Llama 2; the context is counted in tokens."),
        )
    sizes = _sizes(heads)
    sizes, context, notices = _settle(sizes, gqa, eps, context, metadata)
    outputs = [_output(place, heads) for place in places(sizes)]
    _refuse_left(heads, {place.meta for place in places(sizes)})
    words = _given(metadata, sizes) or _words(heads[0])
    writer.write(target, "llama", partial(_describe, heads[0], sizes, context, words), outputs, progress)
    kinds = {ggml.block(tensor.kind, heads[0])[0] for tensor in heads[0].tensors}
    if heads[0].version < 3 and kinds & blocks.WIDE.keys():
        notices.append(_("Its scales of float32 were rounded to float16, as GGUF stores them."))
    return (*notices, *words.notices)


def _heads(source: Path) -> list[ggml.Legacy]:
    """Give what the header of each part says. Raises FormatError when they are no LLaMA that GGUF can hold."""
    if not source.is_file() or _start(source) not in ggml.MAGICS:
        raise FormatError(
            _("{path} is no file of the ggml family.").format(path=source), _("Give a ggml, ggmf or ggjt file.")
        )
    if source.suffix[1:].isdecimal() and source.with_suffix("").is_file():
        raise FormatError(
            _("{path} is one part of a model.").format(path=source), _("Give the first, without a number at its end.")
        )
    first = ggml.read(source)
    if not first.convertible:
        raise _refusal(first)
    heads = [first]
    for path in first.parts[1:]:
        if not path.is_file():
            raise FormatError(
                _("{folder} lacks {name}.").format(folder=source.parent, name=path.name), _("Fetch the missing file.")
            )
        heads += [ggml.read(path)] if _start(path) in ggml.MAGICS else []
    same = {(one.kind, one.version, one.vocabulary, one.embedding, one.heads, one.layers) for one in heads}
    if len(same) > 1 or len(heads) < len(first.parts):
        raise _misfit(source, _("its parts are of different models"))
    return heads


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def _refusal(found: ggml.Legacy) -> FormatError:
    sentence, hint = _("{path} is a {title} file with {types} tensors, which GGUF does not have."), ""
    if found.kind == "GGLA":
        sentence = _("{path} is a {title} adapter of 2023, which cannot be converted.")
        hint = _("Use the PEFT adapter that it was made from, or a GGUF adapter.")
    elif not found.layers or found.kind not in ("GGML", "GGMF", "GGJT"):
        sentence = _("{path} is a {title} file, but not of a LLaMA.")
    sentence = sentence.format(path=found.path, title=found.title, types=", ".join(found.strange))
    return FormatError(sentence, hint or instead(found.path))


def _sizes(heads: Sequence[ggml.Legacy]) -> Sizes:
    """Give the sizes that the header and the shapes tell, epsilon and theta not among them."""
    first = heads[0]
    inner = _measured("layers.0.feed_forward.w1.weight", heads)
    keys, width = _measured("layers.0.attention.wk.weight", heads), first.embedding // first.heads
    fits = first.embedding % first.heads == 0 and width % 2 == 0 and keys % width == 0
    if not inner or not keys or not fits or first.heads % (keys // width):
        raise _misfit(first.path, _("its numbers of heads do not fit its weights"))
    return Sizes(first.embedding, first.layers, first.heads, keys // width, 0.0, 0.0, inner, first.vocabulary)


def _measured(name: str, heads: Sequence[ggml.Legacy]) -> int:
    """Give the rows of a weight over all parts."""
    return sum(tensor.shape[-1] for one in heads for tensor in one.tensors if tensor.name == name)


def _settle(
    sizes: Sizes, gqa: int, eps: float | None, context: int, metadata: Path | None
) -> tuple[Sizes, int, list[str]]:
    """Complete the sizes by what was said and by the folder `metadata`; give the context and what was assumed."""
    if gqa != 1 and gqa * sizes.kv_heads != sizes.heads:
        raise UsageError(
            _("The weights have {count} query heads for each key head, not {gqa}.").format(
                count=sizes.heads // sizes.kv_heads, gqa=gqa
            ),
            _("Leave the option out: the shapes tell."),
        )
    stated = _stated(metadata, sizes) if metadata else None
    assumed = 1e-5 if sizes.kv_heads < sizes.heads else _GUESSED  # Llama 2 brought both grouped heads and 1e-5
    epsilon = eps or (stated.epsilon if stated else assumed)
    config = document.optional(metadata / "config.json") if metadata else {}
    longest = config.get("max_position_embeddings")
    if context == 2048 and type(longest) is int and 0 < longest < 1 << 24:
        context = longest
    notice = _("The file does not tell epsilon and context: {eps} and {context} tokens were assumed.")
    notices = [] if stated or eps else [notice.format(eps=epsilon, context=context)]
    return replace(sizes, epsilon=epsilon, theta=stated.theta if stated else 10000.0), context, notices


def _stated(metadata: Path, sizes: Sizes) -> Sizes | None:
    """Read params.json or config.json, where the folder has one, and compare it with the weights."""
    stated = None
    if (metadata / "params.json").is_file():
        stated = params.read(metadata / "params.json")
    elif (metadata / "config.json").is_file():
        stated = params.from_config(metadata / "config.json")
    names = ("hidden", "layers", "heads", "kv_heads")
    if stated and any(getattr(stated, name) != getattr(sizes, name) for name in names):
        raise UsageError(
            _("{folder} describes a model of other sizes.").format(folder=metadata),
            _("Give the folder of the model that the file was made from."),
        )
    return stated


def _output(place: Place, heads: Sequence[ggml.Legacy]) -> writer.Output:
    """Join the parts of one weight, as rows of bytes."""
    first = heads[0]
    found = [(one, tensor) for one in heads for tensor in one.tensors if tensor.name == place.meta]
    found = found[:1] if place.axis is None else found
    axis, kinds = place.axis or 0, {tensor.kind for _head, tensor in found}
    kind, elements, size = ggml.block(min(kinds, default=-1), first)
    whole = bool(found) and all(tensor.shape[0] % elements == 0 for _head, tensor in found)
    flat = len(place.shape) == 1
    if not whole or len(kinds) > 1 or (flat and kind not in ("F32", "F16")) or not _fits(place, axis, found):
        raise _misfit(first.path, _("{name} should have the shape {shape}").format(name=place.meta, shape=place.shape))
    parts: list[Tensor] = []
    for one, tensor in found:
        rows, width = (1 if flat else tensor.shape[1]), tensor.shape[0] // elements * size
        parts.append(Tensor(place.meta, "U8", (rows, width), one.path, tensor.offset, tensor.offset + rows * width))
    pieces = partial(_pieces, Joined(tuple(parts), axis), kind, first, place)
    return writer.Output(place.gguf, "F32" if flat else kind, place.shape, pieces)


def _fits(place: Place, axis: int, found: Sequence[tuple[ggml.Legacy, header.Tensor]]) -> bool:
    """Tell whether the parts, one behind the other along `axis`, have the shape of the place."""
    shapes = [tensor.shape[::-1] for _head, tensor in found]
    if any(len(shape) != len(place.shape) for shape in shapes):
        return False
    across = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
    along = sum(shape[axis] for shape in shapes)
    return across == {place.shape[:axis] + place.shape[axis + 1 :]} and along == place.shape[axis]


def _pieces(joined: Joined, kind: str, first: ggml.Legacy, place: Place) -> "Iterator[np.ndarray]":
    version = first.version if first.kind == "GGJT" else 0
    rows, width = joined.shape
    step = max(1, _PIECE // max(1, width))
    for start in range(0, rows, step):
        piece = blocks.lift(joined.rows(start, min(start + step, rows)), kind, version)
        if piece is None:
            raise FormatError(
                _("{path}: the scales of {name} are no numbers.").format(path=first.path, name=place.meta),
                instead(first.path),
            )
        plain = {"F32": "<f4", "F16": "<f2"}.get(kind)
        piece = piece.view(plain) if plain else piece
        yield piece.reshape(-1) if len(place.shape) == 1 else piece


def _refuse_left(heads: Sequence[ggml.Legacy], known: set[str]) -> None:
    strange = sorted({tensor.name for one in heads for tensor in one.tensors} - known)
    if strange:
        raise _misfit(heads[0].path, _("{name} has no place in a Llama").format(name=strange[0]))


def _given(metadata: Path | None, sizes: Sizes) -> Vocabulary | None:
    """Read the tokenizer of the folder `metadata`, where it has one."""
    if metadata is None or not any((metadata / name).is_file() for name in ("tokenizer.model", "tokenizer.json")):
        return None
    return vocabulary.read(metadata, sizes.vocabulary, document.optional(metadata / "config.json"))


def _words(found: ggml.Legacy) -> Vocabulary:
    """Give the vocabulary of the file; llama.cpp dies of a token that is empty or occurs twice."""
    words = Vocabulary(ids={"unk": 0, "bos": 1, "eos": 2})
    seen: set[str] = set()
    for id, (text, score) in enumerate(ggml.words(found)):
        word, kind = _word(id, text)
        if word in seen or not word or "\0" in word:
            word, kind = f"[PAD{id}]", UNUSED
            words.notices.append(_("Token {id} was empty or occurred twice: it is unused.").format(id=id))
        seen.add(word)
        words.append(word, float(min(0, _FIRST - id)) if score is None else score, kind)
    words.notices = words.notices[:3]
    return words


def _word(id: int, text: bytes) -> tuple[str, int]:
    if id in _SPECIAL:
        return _SPECIAL[id]
    if id < _FIRST and len(text) == 1:
        return f"<0x{text[0]:02X}>", BYTE
    return text.decode("utf-8", "replace").replace(" ", "\u2581"), NORMAL


def _describe(found: ggml.Legacy, sizes: Sizes, context: int, words: Vocabulary, out: "gguf.GGUFWriter") -> None:
    import gguf  # 0.2 s with numpy: only when a file is written

    out.add_type("model")
    out.add_name(found.path.stem)
    out.add_file_type(_FILE_TYPES.get(found.quantization, 0))
    out.add_quantization_version(gguf.GGML_QUANT_VERSION)
    out.add_context_length(context)
    out.add_embedding_length(sizes.hidden)
    out.add_block_count(sizes.layers)
    out.add_feed_forward_length(sizes.feed_forward)
    out.add_head_count(sizes.heads)
    out.add_head_count_kv(sizes.kv_heads)
    out.add_layer_norm_rms_eps(sizes.epsilon)
    out.add_rope_dimension_count(sizes.head_dim)
    out.add_rope_freq_base(sizes.theta)
    words.describe(out)


def _misfit(path: Path, problem: str) -> FormatError:
    return FormatError(_("{path} cannot be converted: {problem}.").format(path=path, problem=problem), instead(path))
