"""The vocabulary of a Hugging Face folder as GGUF wants it: tokenizer.model or tokenizer.json, and the settings beside
them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.errors import FormatError
from ...core.i18n import _
from .. import document
from . import bpe, spm
from .words import CONTROL, NORMAL, UNUSED, USER_DEFINED, Vocabulary, shown

_TEMPLATE = 1 << 20
"""Bytes of the longest chat template."""


def read(folder: Path, rows: int, config: dict[str, Any]) -> Vocabulary:
    """Give the vocabulary of `folder` for an embedding of `rows` rows. Raises FormatError."""
    settings, added = _json(folder / "tokenizer_config.json"), _json(folder / "added_tokens.json")
    if _sentencepiece(folder):
        vocabulary = spm.read(folder / "tokenizer.model")
        _fit(vocabulary, folder, rows)
        _extend(vocabulary, rows, dict(_added(settings, added)))
    else:
        vocabulary = bpe.read(folder / "tokenizer.json")
        _drop(vocabulary, rows)
        _fit(vocabulary, folder, rows)
        _extend(vocabulary, rows, {id: entry for id, entry in _added(settings, added) if id >= len(vocabulary.tokens)})
    _settle(vocabulary, folder, settings, config)
    _verify(vocabulary, folder)
    return vocabulary


def _sentencepiece(folder: Path) -> bool:
    """Say whether tokenizer.model is to be read: Llama 3's, of the same name, is no SentencePiece model."""
    model, other = folder / "tokenizer.model", folder / "tokenizer.json"
    if not model.is_file() and not other.is_file():
        raise FormatError(
            _("{folder} has no tokenizer: neither tokenizer.model nor tokenizer.json.").format(folder=folder),
            _("Fetch the missing file."),
        )
    if not model.is_file():
        return False
    with model.open("rb") as file:
        return file.read(1) == b"\n" or not other.is_file()


def _drop(vocabulary: Vocabulary, rows: int) -> None:
    """Leave out added tokens that the model has no embedding for, with a notice."""
    dropped: list[str] = []
    while len(vocabulary.tokens) > rows and vocabulary.types[-1] in (CONTROL, USER_DEFINED, UNUSED):
        vocabulary.scores.pop()
        token = vocabulary.tokens.pop()
        dropped += [token] if vocabulary.types.pop() != UNUSED else []
    _tell(vocabulary, dropped[::-1])
    vocabulary.ids = {name: id for name, id in vocabulary.ids.items() if id < len(vocabulary.tokens)}


def _tell(vocabulary: Vocabulary, dropped: list[str]) -> None:
    if dropped:
        vocabulary.notices.append(_("No embedding for the added tokens {tokens}.").format(tokens=shown(dropped)))


def _fit(vocabulary: Vocabulary, folder: Path, rows: int) -> None:
    if len(vocabulary.tokens) > rows:
        raise FormatError(
            _("{folder} has {tokens} tokens but only {rows} rows of embeddings.").format(
                folder=folder, tokens=len(vocabulary.tokens), rows=rows
            ),
            _("The tokenizer belongs to another model: fetch both again."),
        )


def _extend(vocabulary: Vocabulary, rows: int, added: dict[int, tuple[str, float, int]]) -> None:
    """Fill the vocabulary up to `rows`, and put the added tokens where they belong."""
    for id in range(len(vocabulary.tokens), rows):
        vocabulary.append(*added.get(id, (f"[PAD{id}]", -10000.0, UNUSED)))
    _tell(vocabulary, [token for id, (token, _score, _kind) in added.items() if id >= rows])
    for id, (token, score, kind) in added.items():
        if id < rows and (vocabulary.tokens[id] != token or vocabulary.types[id] == NORMAL):
            vocabulary.tokens[id], vocabulary.scores[id], vocabulary.types[id] = token, score, kind


def _added(settings: dict[str, Any], listed: dict[str, Any]) -> Iterator[tuple[int, tuple[str, float, int]]]:
    """Yield id, (text, score, type) of the tokens that were added after training."""
    for token, id in listed.items():
        if type(id) is int and id >= 0:
            yield id, (token.replace("\u2581", " "), -1000.0, USER_DEFINED)
    decoder = settings.get("added_tokens_decoder")
    for id, entry in decoder.items() if isinstance(decoder, dict) else ():
        if id.isdecimal() and isinstance(entry, dict) and isinstance(entry.get("content"), str):
            kind = CONTROL if entry.get("special") else USER_DEFINED
            text = entry["content"] if kind == CONTROL else entry["content"].replace("\u2581", " ")
            yield int(id), (text, -1000.0, kind)


def _settle(vocabulary: Vocabulary, folder: Path, settings: dict[str, Any], config: dict[str, Any]) -> None:
    special, generation = _json(folder / "special_tokens_map.json"), _json(folder / "generation_config.json")
    places = {token: id for id, token in enumerate(vocabulary.tokens)}
    for name in ("bos", "eos", "unk", "pad"):
        token = settings.get(f"{name}_token") or special.get(f"{name}_token")
        text = token.get("content") if isinstance(token, dict) else token
        ids = _ids(config.get(f"{name}_token_id"))
        if isinstance(text, str) and text in places:
            vocabulary.ids[name] = places[text]
        elif ids and ids[0] < len(places):
            vocabulary.ids.setdefault(name, ids[0])
    stated = set(vocabulary.ids)
    _end(vocabulary, folder, [*_ids(generation.get("eos_token_id")), *_ids(config.get("eos_token_id"))])
    for id in (vocabulary.ids.get("bos"), vocabulary.ids.get("eos"), vocabulary.ids.get("eot")):
        if id is not None and vocabulary.types[id] in (NORMAL, USER_DEFINED):
            vocabulary.types[id] = CONTROL
    if vocabulary.model == "llama" and isinstance(settings.get("add_prefix_space"), bool):
        vocabulary.add_space_prefix = settings["add_prefix_space"]
    for name, has in (("add_bos", "bos"), ("add_eos", "eos")):
        wanted, own = settings.get(f"{name}_token"), getattr(vocabulary, name)
        setattr(vocabulary, name, (wanted if isinstance(wanted, bool) else own) and has in stated)
    vocabulary.chat_template = _template(folder, settings.get("chat_template"))


def _end(vocabulary: Vocabulary, folder: Path, others: list[int]) -> None:
    """Settle what ends a text, and what llama.cpp takes for its beginning: it guesses token 1 or 2, or, for bytewise
    vocabularies, 11 where nothing is said."""
    ids = vocabulary.ids
    others = [id for id in others if id < len(vocabulary.tokens)]
    if "eos" not in ids and others:
        ids["eos"] = others[0]
    if "eos" not in ids:
        raise FormatError(
            _("{folder} does not say which token ends a text.").format(folder=folder),
            _("Add its id as eos_token_id to a copy of config.json."),
        )
    ids.setdefault("bos", ids["eos"])
    for id in others:  # not bos: the config.json files of decapoda-research (2023) name it by mistake
        if id not in (ids["bos"], ids["eos"]) and vocabulary.types[id] in (CONTROL, USER_DEFINED):
            ids["eot"] = id
            return


def _ids(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values[:64] if type(one) is int and one >= 0]


def _template(folder: Path, setting: Any) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        with path.open("rb") as file:
            text = file.read(_TEMPLATE + 1)
        if len(text) > _TEMPLATE:
            raise FormatError(_("{path} is damaged.").format(path=path), _("Fetch it again."))
        return text.decode("utf-8", "replace")
    if isinstance(setting, list):
        named = {entry.get("name"): entry.get("template") for entry in setting if isinstance(entry, dict)}
        setting = named.get("default")
    return setting if isinstance(setting, str) and len(setting) <= _TEMPLATE and _sound(setting) else None


def _verify(vocabulary: Vocabulary, folder: Path) -> None:
    """Refuse what kills llama.cpp while it loads: two equal tokens, or one without text; and half characters."""
    seen: set[str] = set()
    for id, token in enumerate(vocabulary.tokens):
        if not token or token in seen or "\0" in token or not _sound(token):
            raise FormatError(
                _("Token {id} of {folder} is empty or occurs twice.").format(id=id, folder=folder),
                _("The tokenizer is damaged or was extended wrongly: fetch it again."),
            )
        seen.add(token)


def _sound(text: str) -> bool:
    """Tell whether the text is Unicode: JSON can spell half a character."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _json(path: Path) -> dict[str, Any]:
    return document.read(path) if path.is_file() else {}
