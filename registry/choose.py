"""Which files of a repository make one model: one quantization, one form of the weights, nothing twice."""

from dataclasses import dataclass

from ..core.errors import FormatError, NotFoundError, UsageError
from ..core.i18n import _
from . import catalogue
from .forms import FORMS, Option
from .hub import RemoteFile, Repository
from .reference import Reference

QUANTIZATIONS = (
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ2_S", "IQ2_M", "Q2_K", "IQ3_XXS", "IQ3_XS", "Q3_K_S",
    "IQ3_S", "IQ3_M", "Q3_K_M", "Q3_K_L", "IQ4_XS", "Q4_0", "IQ4_NL", "Q4_K_S", "Q4_K_M", "Q4_1", "Q5_0",
    "Q5_K_S", "Q5_K_M", "Q5_1", "Q6_K", "Q8_0", "F16", "BF16", "F32",
)  # fmt: skip
"""GGUF quantizations by size, the smallest first (llama.cpp, tools/quantize)."""
FIRST = "Q4_K_M"
_OTHERS = {".onnx": "ONNX", ".h5": "TensorFlow", ".msgpack": "Flax", ".ot": "Rust", ".pth": "PyTorch .pth"}


@dataclass(frozen=True, slots=True)
class Choice:
    """The files to fetch, what they are (a kind of record, or "ggml"), and what else there was to choose."""

    kind: str
    option: Option
    options: tuple[Option, ...]


def choose(repository: Repository, wanted: Reference, memory: int | None = None) -> Choice:
    """Give the files of the model that `wanted` means; of GGUF builds Q4_K_M, else the nearest within `memory` bytes.

    Raises NotFoundError for a file or tag that is not there, UsageError when the choice is a person's, FormatError
    when nothing there can be used.
    """
    files = tuple(file for file in repository.files if _plain(file.name))
    if wanted.file:
        return _one_file(repository, files, wanted.file)
    for kind, find in FORMS:
        if options := find(files, repository.name):
            return Choice(kind, _pick(kind, options, wanted.tag, memory, repository.name), tuple(options))
    raise _unusable(repository)


def _one_file(repository: Repository, files: tuple[RemoteFile, ...], name: str) -> Choice:
    """Give the model that one file belongs to: its own parts for GGUF and GGML, its settings for the rest."""
    chosen = next((file for file in files if file.name == name), None)
    if chosen is None:
        known = ", ".join(file.name for file in files[:8])
        raise NotFoundError(
            _("{name} has no file {file}.").format(name=repository.name, file=name),
            _("It holds {names}.").format(names=known),
        )
    for kind, find in FORMS:
        for option in find(files, repository.name):
            if chosen in option.files:
                return Choice(kind, option, (option,))
    raise _unusable(repository)


def _pick(kind: str, options: list[Option], tag: str, memory: int | None, name: str) -> Option:
    if tag:
        options = [one for one in options if one.tag.casefold() == tag.casefold()] or _no_tag(options, tag, name)
    if kind == "gptq":  # listed by how many programs read them
        return options[0]
    fitting = [option for option in options if memory is None or option.size <= memory] or options
    nearest = min(map(_distance, fitting))
    several = [option for option in fitting if _distance(option) == nearest]
    if len(several) == 1:
        return several[0]
    raise UsageError(
        _("{name} holds several models.").format(name=name),
        _("Choose one: {names}.").format(names=", ".join(f"{name}:{option.files[0].name}" for option in several[:8])),
    )


def _no_tag(options: list[Option], tag: str, name: str) -> list[Option]:
    known = ", ".join(option.tag for option in options if option.tag)
    raise NotFoundError(
        _("{name} has no {tag}.").format(name=name, tag=tag),
        _("It holds {names}.").format(names=known) if known else _("Leave out the part after the colon."),
    )


def _distance(option: Option) -> tuple[int, int]:
    """How far from Q4_K_M; of two equally far the smaller."""
    if option.tag not in QUANTIZATIONS:
        return len(QUANTIZATIONS), 0
    steps = QUANTIZATIONS.index(option.tag) - QUANTIZATIONS.index(FIRST)
    return abs(steps), steps


def _plain(name: str) -> bool:
    """Tell whether a name stays inside the folder and is one that people can read."""
    return name.isprintable() and not name.startswith("/") and ".." not in name.split("/") and "\\" not in name


def _unusable(repository: Repository) -> FormatError:
    names = [file.name for file in repository.files]
    forms = sorted({form for ending, form in _OTHERS.items() if any(name.endswith(ending) for name in names)})
    message = _("{name} holds no weights that vigtui can use.").format(name=repository.name)
    if forms:
        message += " " + _("There is only {forms}.").format(forms=", ".join(forms))
    entry = catalogue.lookup(repository.name)
    builds = [one.repository for one in catalogue.builds(entry, "gguf")] if entry else []
    hint = _("Pull {name} instead.").format(name=builds[0]) if builds else _("Look for a GGUF build: vigtui search.")
    return FormatError(message, hint)
