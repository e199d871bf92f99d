"""Which files of a repository make one model: one quantization, one form of the weights, nothing twice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..core.errors import FormatError, NotFoundError, UsageError
from ..core.i18n import _
from . import catalogue
from . import plan as planning
from .forms import FORMS, Option
from .hub import RemoteFile, Repository
from .plan import Plan
from .reference import Reference

_OTHERS = {".onnx": "ONNX", ".h5": "TensorFlow", ".msgpack": "Flax", ".ot": "Rust", ".pth": "PyTorch .pth"}


@dataclass(frozen=True, slots=True)
class Choice:
    """The files to fetch, what they are (a kind of record, or "ggml"), and what else there was to choose."""

    kind: str
    option: Option
    options: tuple[Option, ...]


Weigh = Callable[[str, tuple[Option, ...]], list[Plan]]
"""Gives the plans of the options of one kind, in their order."""


def choose(repository: Repository, wanted: Reference, weigh: Weigh, first: Sequence[str] = ()) -> Choice:
    """Give the files of the model that `wanted` means; of GGUF builds Q4_K_M, else the nearest that fits.

    Of several kinds the usual one is taken, unless there is one of `first`, in that order.
    Raises NotFoundError for a file or tag that is not there, UsageError when the choice is a person's, FormatError
    when nothing there can be used.
    """
    files = tuple(file for file in repository.files if _plain(file.name))
    if wanted.file:
        return _one_file(repository, files, wanted.file)
    for kind, find in sorted(FORMS, key=lambda form: first.index(form[0]) if form[0] in first else len(first)):
        if options := find(files, repository.name):
            return Choice(kind, _pick(kind, options, wanted.tag, weigh, repository.name), tuple(options))
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


def _pick(kind: str, options: list[Option], tag: str, weigh: Weigh, name: str) -> Option:
    if tag:
        options = [one for one in options if one.tag.casefold() == tag.casefold()] or _no_tag(options, tag, name)
    if kind == "gptq" or len(options) == 1:  # GPTQ builds are listed by how many programs read them
        return options[0]
    plans = weigh(kind, tuple(options))
    best = next((one for one in plans if one.recommended), None) or min(plans, key=planning.distance)
    chosen = options[plans.index(best)]
    several = [option for option in options if option.tag == chosen.tag]
    if len(several) == 1:
        return chosen
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
    search = _("Look for a GGUF build: `vigtui search WORDS`.")
    hint = _("Pull {name} instead.").format(name=builds[0]) if builds else search
    return FormatError(message, hint)
