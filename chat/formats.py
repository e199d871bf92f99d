"""Prompt formats as data: one TOML file a format, in `assets/formats` and in the user's `config()/formats`."""

import difflib
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .. import assets
from ..backends.base import ModelInfo
from ..core import paths
from ..core.errors import FormatError, NotFoundError
from ..core.i18n import _

SystemState = Literal["default", "text", "empty", "none"]
POLICIES = ("rounds", "rounds-keep-first", "rounds-or-fail", "tail-tokens", "tail-chars", "halve-then-drop")
POST = frozenset({"lstrip", "drop-fffd"})
OWN = "own"
"""The id of the format that a model brings itself."""


@dataclass(frozen=True, slots=True)
class System:
    """What stands in the system message: the format's default, this text, an empty text, or no message at all."""

    state: SystemState = "default"
    text: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """A prompt format. `template` is Jinja over system (text or None), messages, rounds, input, is_default, bos, eos
    ("" unless `eos_in_history`), and cut, which a template with a policy "tail-…" writes before every round and
    after the last.

    `system` is its default system text, None when it has none. `stop` and `stop_token_ids` end an answer.
    `policy` says what is cut when the context is full (`chat/window.py`), `memory` how much history is kept at
    most: tokens, with "tail-chars" characters. `post` says what is done to an answer: "lstrip" takes off the space
    after the colon, "drop-fffd" the signs of broken characters. `for_specials` and `for_architectures` are where it
    is the best guess.
    """

    id: str
    template: str
    description: str = ""
    system: str | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    eos_in_history: bool = True
    policy: str = "rounds"
    memory: int | None = None
    post: tuple[str, ...] = ("lstrip",)
    source: str = ""
    example: str = ""
    for_specials: tuple[str, ...] = ()
    for_architectures: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def own(self) -> bool:
        """Whether the template is a model's own."""
        return self.id == OWN


def folders() -> tuple[Path, ...]:
    """Give where format files lie: ours, then the user's, which win."""
    return assets.path("formats"), paths.config() / "formats"


def ids() -> list[str]:
    """Give the ids of all formats, sorted; "own" is not among them."""
    return sorted(_files())


def _files() -> dict[str, Path]:
    return {path.stem: path for folder in folders() for path in sorted(folder.glob("*.toml"))}


def get(id: str) -> Format:
    """Give the format `id`; `id+eos` and `id+no-eos` turn EOS after earlier answers on and off.

    Raises NotFoundError with the nearest ids, FormatError for a damaged file.
    """
    files = _files()
    name, plus, switch = id.rpartition("+")
    if plus and switch in _SWITCHES and id not in files:
        return replace(get(name), id=id, eos_in_history=_SWITCHES[switch])
    if id not in files:
        near = difflib.get_close_matches(id.lower(), files, n=3, cutoff=0.4)
        raise NotFoundError(
            _("There is no prompt format “{id}”.").format(id=id),
            _("Did you mean {names}?").format(names=", ".join(near or sorted(files))),
        )
    return read(files[id])


_SWITCHES = {"eos": True, "no-eos": False}


def everything() -> tuple[list[Format], list[FormatError]]:
    """Give all formats that can be read, and the errors of the files that cannot."""
    good, bad = [], []
    for path in _files().values():
        try:
            good.append(read(path))
        except FormatError as error:
            bad.append(error)
    return sorted(good, key=lambda form: form.id), bad


def read(path: Path) -> Format:
    """Parse the format file `path`. Raises FormatError naming the file and the reason."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return Format(id=path.stem, path=path, **_fields(table))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        raise FormatError(
            _("The format file {path} cannot be read: {reason}.").format(path=path, reason=str(error).rstrip(".")),
            _("Correct it or remove it."),
        ) from error


_KINDS: dict[str, type] = {
    "template": str,
    "description": str,
    "system": str,
    "stop": list,
    "stop_token_ids": list,
    "eos_in_history": bool,
    "policy": str,
    "memory": int,
    "post": list,
    "source": str,
    "example": str,
    "for_specials": list,
    "for_architectures": list,
}
_ITEMS: dict[str, type] = {"stop_token_ids": int}


def _fields(table: dict[str, Any]) -> dict[str, Any]:
    for key, value in table.items():
        if key not in _KINDS:
            raise ValueError(_("unknown key “{key}”").format(key=key))
        items = value if isinstance(value, list) else ()
        if not isinstance(value, _KINDS[key]) or not all(isinstance(i, _ITEMS.get(key, str)) for i in items):
            raise ValueError(_("“{key}” has the wrong type").format(key=key))
    if "template" not in table:
        raise ValueError(_("“template” is missing"))
    if table.get("policy", POLICIES[0]) not in POLICIES:
        raise ValueError(_("“policy” must be one of {names}").format(names=", ".join(POLICIES)))
    if unknown := set(table.get("post", ())) - POST:
        raise ValueError(_("unknown post-processing {names}").format(names=", ".join(sorted(unknown))))
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def own(info: ModelInfo) -> Format:
    """Give the format that the model brings in its files. Raises NotFoundError when it brings none."""
    if not info.chat_template:
        raise NotFoundError(
            _("The model has no chat template of its own."), _("`vigtui formats ls` lists the formats to choose from.")
        )
    return Format(id=OWN, template=info.chat_template, description=_("the model's own chat template"))


Origin = Literal["user", "record", "own", "guess"]


def origin(format_id: str | None, info: ModelInfo, override: str | None = None) -> Origin:
    """Give where `choose` takes the format from."""
    if override or format_id:
        return "user" if override else "record"
    return "own" if info.chat_template else "guess"


def choose(format_id: str | None, info: ModelInfo, override: str | None = None) -> tuple[Format, str]:
    """Give the prompt format for a model and the reason, a sentence.

    In this order: `override` (the user's), `format_id` (the record's or the catalogue's), the model's own
    template, a guess by its special tokens, then by its architecture, else raw text. "own" names the template
    of the model. Raises NotFoundError for an unknown id, FormatError for a damaged file.
    """
    if override:
        return _named(override, info), _("You chose this format.")
    if format_id:
        return _named(format_id, info), _("The model's record names this format.")
    if info.chat_template:
        return own(info), _("The model brings its own chat template.")
    return _guess(info)


def _named(id: str, info: ModelInfo) -> Format:
    return own(info) if id == OWN else get(id)


def _guess(info: ModelInfo) -> tuple[Format, str]:
    known = everything()[0]
    for form in known:
        if found := set(form.for_specials) & set(info.specials):
            return form, _("A guess: the vocabulary has the token {token}.").format(token=min(found))
    for form in known:
        if info.architecture in form.for_architectures:
            return form, _("A guess: models of the architecture {name} often use it.").format(name=info.architecture)
    return get("raw"), _("Nothing says which format the model was trained with, so the text is sent as it is.")


def system_of(form: Format, system: System) -> str | None:
    """Give the text of the system message in the state `system`, None for no message."""
    return {"default": form.system, "text": system.text, "empty": "", "none": None}[system.state]


def stops(form: Format, given: tuple[str, ...] | None) -> tuple[str, ...]:
    """Give the user's stop strings and the format's, each once."""
    return tuple(dict.fromkeys((*(given or ()), *form.stop)))


def postprocess(form: Format, text: str, begun: bool = False) -> str:
    """Give an answer, or the next piece of one that has `begun`, as the format wants it kept."""
    if "drop-fffd" in form.post:
        text = text.replace("\ufffd", "")
    return text.lstrip() if "lstrip" in form.post and not begun else text
