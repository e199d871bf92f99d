"""Text to token ids and back with the tokenizer of a Hugging Face folder."""

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core.errors import BackendError, FormatError
from ..core.i18n import _
from . import vocabulary
from .hf_words import Json, SentencePieces

ENDS = frozenset(
    {"<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<end_of_turn>", "<EOT>", "_<EOT>"}
)
"""Special tokens that end an answer whatever the files call EOS (llama.cpp knows them by their text too)."""
_LIMIT = 256 << 20
_TEMPLATE = 1 << 20
"""Characters of a chat template that are read at most."""
_OLDER = ("vocab.*", "merges.txt", "*.model", "*.tiktoken", "tekken.json", "tokenization*.py")
"""Files from which transformers makes a tokenizer."""


class Vocabulary(vocabulary.Vocabulary):
    """The tokenizer of the model folder `path` with `size` rows of logits; `ends` are EOS ids of its configuration."""

    def __init__(self, path: Path, size: int, ends: Iterable[int] = (), remote_code: bool = False) -> None:
        super().__init__()
        self._path = path
        self.settings = settings_in(path / "tokenizer_config.json")
        found = settings_in(path / "tokenizer.json") or (
            {} if (path / "tokenizer.model").is_file() else _rebuilt(path, remote_code)
        )
        self._words = self._choose(path, found)
        added = _added(path, found, self.settings)
        if isinstance(self._words, SentencePieces):
            added = {**self._words.specials(), **added}
        self.size = max(size, self._words.size)
        self._controls = {id for id, one in added.items() if one.get("special")}
        self._specials = {one["content"]: id for id, one in added.items() if one["content"].strip()}
        self._strips = {id: (bool(one.get("lstrip")), bool(one.get("rstrip"))) for id, one in added.items()}
        self._strips = {id: self._strips[id] for id in self._specials.values()}
        names = {**settings_in(path / "special_tokens_map.json"), **self.settings}
        self._guarded = frozenset(self._strips) - {self._id(names.get("unk_token"))}
        self.bos, self.eos = self._id(names.get("bos_token")), self._id(names.get("eos_token"))
        self.adds_bos = self.bos >= 0 and self._begins(found)
        known = {id for text, id in self._specials.items() if text in ENDS}
        self.end_ids = {id for id in {self.eos, *ends, *known} if 0 <= id < self.size}

    def _choose(self, path: Path, found: Mapping[str, Any]) -> "SentencePieces | Json":
        """Give SentencePiece where the files agree with it; `legacy: false` asks for what only tokenizer.json says."""
        if (path / "tokenizer.model").is_file():
            if not found:
                return SentencePieces(path / "tokenizer.model")
            try:
                pieces = SentencePieces(path / "tokenizer.model")
            except FormatError:
                return Json(found)
            words = (found.get("model") or {}).get("vocab")
            same = isinstance(words, dict) and all(words.get(pieces.token(i), i) == i for i in range(pieces.size))
            if same and self.settings.get("legacy") is not False:
                return pieces
        return Json(found)

    def _id(self, named: Any) -> int:
        text = named.get("content") if isinstance(named, dict) else named
        if not isinstance(text, str):
            return -1
        return self._specials[text] if text in self._specials else self._words.id(text)

    def _begins(self, found: Mapping[str, Any]) -> bool:
        """Whether a prompt begins with BOS: the settings say so, else the template of tokenizer.json."""
        if isinstance(told := self.settings.get("add_bos_token"), bool):
            return told
        if isinstance(self._words, Json):
            return self._words.whole.encode("a").ids[:1] == [self.bos]
        return Json(found).whole.encode("a").ids[:1] == [self.bos] if found else True

    def text_of(self, token: int) -> str:
        if not 0 <= token < self.size:
            return ""
        return self._words.token(token) or next((text for text, id in self._specials.items() if id == token), "")

    def _piece(self, token: int) -> bytes:
        if token in self._controls:
            return b""
        if token in self._strips:
            return self.text_of(token).encode()
        return self._words.piece(token)

    def encode(self, text: str, special: bool, inner: bool = False) -> list[int]:
        if not special:
            return self._words.encode(text, inner)
        if isinstance(self._words, Json):
            clean = text.encode("utf-8", "replace").decode()
            return self._words.whole.encode(clean, add_special_tokens=False).ids
        return self._encode_guarded([(text, True)])

    @cached_property
    def template(self) -> str | None:
        """The chat template: chat_template.jinja, else the one (of several, "default") in tokenizer_config.json."""
        beside = self._path / "chat_template.jinja"
        if beside.is_file():
            return beside.read_text("utf-8", "replace")[:_TEMPLATE]
        found = self.settings.get("chat_template")
        if isinstance(found, list):
            named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
            found = named.get("default")
        return found if isinstance(found, str) else None


def _added(path: Path, found: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Give id → {content, special, lstrip, rstrip} of the added tokens, wherever the folder names them."""
    tokens: dict[int, dict[str, Any]] = {}
    for text, id in settings_in(path / "added_tokens.json").items():
        if isinstance(id, int):
            tokens[id] = {"content": text, "special": True}
    for id, one in (settings.get("added_tokens_decoder") or {}).items():
        if str(id).isdecimal() and isinstance(one, dict) and isinstance(one.get("content"), str):
            tokens[int(id)] = one
    for one in found.get("added_tokens") or ():
        tokens[one["id"]] = one
    return tokens


def _rebuilt(path: Path, remote_code: bool) -> dict[str, Any]:
    """Give what tokenizer.json would hold, for the older vocab.json and merges.txt."""
    from transformers import AutoTokenizer  # the one that knows every older form

    if not any(any(path.glob(name)) for name in _OLDER):  # it would make an empty one
        raise FormatError(
            _("{path} has no tokenizer.").format(path=path), _("Fetch its tokenizer.json or tokenizer.model.")
        )
    try:
        made: Any = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=remote_code)
        return json.loads(made.backend_tokenizer.to_str())
    except (OSError, ValueError, AttributeError, ImportError, TypeError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise  # not the file's fault: who loads the model says what to do
        raise BackendError(
            _("{path} has no tokenizer that can be read: {reason}.").format(
                path=path, reason=str(error).strip().partition("\n")[0][:200] or type(error).__name__
            ),
            _("Fetch its tokenizer.json or tokenizer.model."),
        ) from error


def settings_in(path: Path, limit: int = _LIMIT) -> dict[str, Any]:
    """Give the JSON object in `path`, {} when there is no such file; `limit` in bytes. Raises FormatError."""
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(limit))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(_("{path} is damaged.").format(path=path), _("Fetch it again.")) from error
    return values if isinstance(values, dict) else {}
