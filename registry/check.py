"""Refusals before a load: one sentence and the next step, for every file that is no model or would kill the engine."""

import re
import sys
from pathlib import Path

from ..core.errors import FormatError, NotFoundError, VigtuiError
from ..core.i18n import _
from . import header
from .kind import MODELS, Sniffed
from .sniff import sniff

_TOKENS = 1 << 20
"""More than any vocabulary has."""


def check(path: Path) -> Sniffed:
    """Give what `path` is when a backend can load it. Raises NotFoundError or FormatError."""
    found = sniff(path)
    if found.kind not in MODELS:
        raise refusal(found)
    if found.header:
        _check_gguf(found, found.header)
    return found


def refusal(found: Sniffed) -> VigtuiError:
    """Give the error that says why this is no model."""
    path, detail = found.path, found.detail
    if found.kind == "missing":
        return NotFoundError(_("There is no file {path}.").format(path=path), _("Check the path."))
    if found.kind == "ggml":
        return FormatError(*_of_2023(found))
    sentences = _refusals(whole=not detail)
    key = f"{found.kind} {found.variant}"
    message, hint = sentences.get(key) or sentences.get(found.kind) or ("{detail}", _("Fetch it again."))
    hint = detail if found.kind == "folder" and detail else hint
    message = message.format(path=path, detail=detail, architecture=found.architecture).strip()
    return FormatError(message, hint.format(path=path) if hint != detail else hint)


def _of_2023(found: Sniffed) -> tuple[str, str]:
    """Say what a file from before GGUF is, and whether its weights can still be used (llama.cpp of August 2023)."""
    title = f"{found.detail} {found.quantization}".strip()
    message = _("{path} is a {title} file of 2023; llama.cpp stopped reading it in August 2023.")
    message = message.format(path=found.path, title=title)
    if found.variant == "convertible":
        return message, _("`vigtui convert {path}` makes a GGUF of it.").format(path=found.path)
    if found.variant == "adapter":
        return message, _("Use the PEFT adapter that it was made from, or a GGUF adapter.")
    if found.quantization:
        message += " " + _("Its {type} blocks are of a layout that GGUF does not have.").format(type=found.quantization)
    return message, instead(found.path)


def instead(path: Path) -> str:
    """Name the GGUF build that the catalogue has of the model a file is called after."""
    from . import catalogue  # 10 ms, of which a load has no use

    stem = re.split(r"(?i)[.-](?:ggml|ggjt|q\d)", path.name)[0].casefold()
    for entry in catalogue.entries() if len(stem) > 4 else ():
        if entry.kind == "gguf" and entry.repository.casefold().rpartition("/")[2].removesuffix("-gguf") == stem:
            return _("Pull its GGUF build instead: vigtui pull {name}").format(name=entry.repository)
    return _("Pull a GGUF build of this model instead.")


def _refusals(whole: bool) -> dict[str, tuple[str, str]]:
    """Give kind, or kind and variant → (sentence, next step), in the language in force."""
    gguf = _("Pull a GGUF build of this model instead.")
    other = _("Fetch the safetensors or GGUF form.")
    beside = _("Load the language model that it belongs to.")
    return {
        "empty": (_("{path} is empty."), _("Fetch it again.")),
        "unreadable": (_("{path} cannot be read: {detail}."), _("Check its permissions.")),
        "folder": (_("{path} holds no model."), _("Give the folder or file with the weights.")),
        "lfs": (_("{path} is a git-lfs pointer, not the file itself."), _("Run `git lfs pull` there, or pull it.")),
        "html": (_("{path} is a web page, not a model."), _("Fetch the file itself, not its page.")),
        "torch": (_("{path} holds PyTorch weights without their config.json."), _("Fetch the whole folder.")),
        "torch strange": (
            _("{path} would run code when it is unpickled: {detail}."),
            _("Do not open it with other programs; fetch the safetensors form."),
        ),
        "torch adapter": (
            _("{path} holds {detail} in a PyTorch file, which vigtui does not load."),
            _("Merge it into its base model with `vigtui merge`, or fetch its adapter_model.safetensors."),
        ),
        "torch gptq": (
            _("{path} holds weights quantized as {detail} in a PyTorch file, which vigtui does not load."),
            _("Fetch the safetensors form, or quantize again with `vigtui quantize --gptq`."),
        ),
        "hollow": (
            _("{path} is an adapter that changes nothing: it has no tensors, or only zeros (a known bug of 2023)."),
            _("Fetch it from its author again, or train it with a later PEFT."),
        ),
        "pickle": (_("{path} is a pickle, which can run code when it is read."), other),
        "meta": (
            _("{path} holds Meta's original checkpoint. {detail}"),
            _("`vigtui convert {path}` makes a GGUF of it.") if whole else _("Fetch the missing file."),
        ),
        "awq": (_("{path} is quantized with AWQ, which no backend here reads."), gguf),
        "weights": (_("{path} holds weights without their config.json."), _("Fetch the whole folder.")),
        "weights adapter": (
            _("{path} holds an adapter without its adapter_config.json."),
            _("Fetch the whole folder."),
        ),
        "tokenizer": (_("{path} is a tokenizer, not a model."), _("Give the file with the weights.")),
        "projector": (_("{path} is the image part of a model, not a language model."), beside),
        "imatrix": (_("{path} is an importance matrix, made for quantizing."), beside),
        "vocabulary": (_("{path} holds a vocabulary without weights."), beside),
        "embedding": (
            _("{path} is a model for embeddings or search ({architecture}): it writes no text."),
            _("Choose a chat or instruct model."),
        ),
        "unknown": (_("{path} is no model file that vigtui knows."), _("It reads GGUF and safetensors.")),
    }


def _check_gguf(found: Sniffed, head: header.Header) -> None:
    """Refuse what llama.cpp does not read, and what makes it abort while loading (llama.cpp, llama-model.cpp)."""
    if head.version == 1:
        raise FormatError(
            _("{path} is GGUF version 1; llama.cpp stopped reading it in November 2023.").format(path=found.path),
            _("Pull a newer build of this model."),
        )
    if head.big_endian != (sys.byteorder == "big"):
        raise FormatError(
            _("{path} was written for machines of the other byte order.").format(path=found.path),
            _("Pull another build of this model."),
        )
    problem = None if found.kind == "adapter" else _lethal(head) or _lethal_tokens(head)
    if problem:
        raise FormatError(
            _("{path} is damaged: {problem}.").format(path=found.path, problem=problem), _("Fetch it again.")
        )


def _lethal(head: header.Header) -> str | None:
    if not head.architecture:
        return _("it names no architecture")
    blocks = head.number("ARCH.block_count")
    if blocks is not None and not 1 <= blocks <= 512:
        return _("it claims {blocks} layers").format(blocks=blocks)
    for key in ("ARCH.attention.layer_norm_rms_epsilon", "ARCH.attention.layer_norm_epsilon"):
        epsilon = head.number(key)
        if epsilon is not None and not 0 < epsilon < 1:
            return _("its RMS epsilon is {value}").format(value=epsilon)
    if head.architecture == "llama" and head.text("tokenizer.ggml.model") == "bert":
        return _("its tokenizer is that of another architecture")
    return None


def _lethal_tokens(head: header.Header) -> str | None:
    """Find two equal tokens or an empty one; llama.cpp ends each at its first zero byte."""
    array = head.metadata.get("tokenizer.ggml.tokens")
    if isinstance(array, header.Array) and array.count > _TOKENS:
        return _("it claims {count} tokens").format(count=array.count)
    seen: set[bytes] = set()
    for id, token in enumerate(header.tokens(head)):
        word = token.split(b"\0", 1)[0]
        if not word or word in seen:
            return _("its token {id} is empty or occurs twice").format(id=id)
        seen.add(word)
    return None
