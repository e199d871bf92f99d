"""A tokenizer.json with BPE merges, as GGUF wants it: GPT-2's alphabet of bytes, or a SentencePiece model in disguise.

Format: the serialization of huggingface/tokenizers. SentencePiece's merges became (left, right) pairs there, in the
order of the scores of what they make; where the two are equivalent, those scores are found again.
"""

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from ...core.errors import FormatError
from ...core.i18n import _
from . import pretokenizer
from .words import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary, shown

_LIMIT = 64 << 20
"""Bytes of the longest file; Llama 3's has 17 million."""
_MARKS = 5_000_000
"""Brackets and commas: each can cost a hundred bytes of objects, and a merge has three."""
_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}


def read(path: Path) -> Vocabulary:
    """Give the vocabulary in the tokenizer.json at `path`, added tokens included. Raises FormatError."""
    try:
        found = _load(path)
        model = found["model"]
        if model.get("type", "BPE") != "BPE" or not isinstance(model.get("merges"), list):
            raise _unsupported(path, _("its model is {name}").format(name=model.get("type")))
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(name):
                raise _unsupported(path, _("{name} is {value}").format(name=name, value=model[name]))
        merges = [_pair(merge) for merge in model["merges"]]
        merges = list(dict.fromkeys(reversed(merges)))[::-1]  # of two equal ones, the tokenizer knows the last
        vocabulary = _tokens(model["vocab"])
        if not merges or any(part not in model["vocab"] for merge in merges for part in merge):
            raise ValueError("merges")
        if pretokenizer.bytewise(found.get("pre_tokenizer")):
            _bytewise(vocabulary, found, merges, path)
        else:
            _scored(vocabulary, found, merges, path)
        _add(vocabulary, found.get("added_tokens") or ())
        _surround(vocabulary, found.get("post_processor"))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, StopIteration, RecursionError) as error:
        raise FormatError(_("{path} is damaged.").format(path=path), _("Fetch it again.")) from error
    return vocabulary


def _load(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > _LIMIT:
        raise ValueError("too large")
    text = path.read_bytes()
    if sum(map(text.count, (b"{", b"[", b","))) > _MARKS:
        raise ValueError("too large")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("too deep") from error


def _pair(merge: Any) -> tuple[str, str]:
    """Give the two parts of a merge, a pair or, before 2024, one string."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return str(left), str(right)


def _tokens(vocab: Mapping[str, int]) -> Vocabulary:
    """Give the tokens by id; ids that nothing has are filled up."""
    vocabulary, held = Vocabulary(add_bos=False), {id: token for token, id in vocab.items()}
    size = max(held, default=-1) + 1
    if len(held) != len(vocab) or min(held, default=0) < 0 or size > 2 * len(held) + 1024:
        raise ValueError("ids")
    for id in range(size):
        vocabulary.append(*(held[id], 0.0, NORMAL) if id in held else (f"[PAD{id}]", 0.0, UNUSED))
    return vocabulary


def _bytewise(vocabulary: Vocabulary, found: Mapping[str, Any], merges: list[tuple[str, str]], path: Path) -> None:
    vocabulary.model = "gpt2"
    vocabulary.add_space_prefix = False
    whole = bool(found["model"].get("ignore_merges"))
    vocabulary.pre = pretokenizer.recognise(found.get("pre_tokenizer"), whole, path)
    if any(" " in part for merge in merges for part in merge):
        raise _unsupported(path, _("a merge has a space"))
    vocabulary.merges = [" ".join(merge) for merge in merges]
    steps = [step.get("type") for step in _parts(found.get("normalizer"), "normalizers")]
    if any(step != "NFC" for step in steps):
        raise _unsupported(path, _("its normalizer is {name}").format(name=", ".join(map(str, steps))))
    if vocabulary.pre in pretokenizer.LOOSE:
        vocabulary.notices.append(
            _("Words with capitals beyond A to Z or with combining marks may become other tokens in llama.cpp.")
        )
    if steps:
        vocabulary.notices.append(
            _("The tokenizer composes letters and accents (NFC) before it cuts a text; llama.cpp will not.")
        )


def _scored(vocabulary: Vocabulary, found: Mapping[str, Any], merges: list[tuple[str, str]], path: Path) -> None:
    """Read what SentencePiece was: the score of a token is minus the rank of the first merge that makes it."""
    model, prefix = found["model"], _prefix(found, path)
    if not model.get("byte_fallback") or not model.get("vocab", {}).keys() >= _BYTES or model.get("ignore_merges"):
        raise _unsupported(path, _("it is neither bytewise nor a SentencePiece model with all bytes"))
    vocabulary.add_space_prefix = prefix is not None
    if prefix in ("always", "first"):
        vocabulary.notices.append(_("Before a text that begins with a space llama.cpp puts one space more."))
    if prefix == "first":
        vocabulary.notices.append(_("After a special token llama.cpp adds a space, the tokenizer does not."))
    unknown = model.get("unk_token")
    exempt = {*_BYTES, str(unknown), *(entry["content"] for entry in found.get("added_tokens") or ())}
    _by_score(vocabulary, merges, exempt, path)
    for id, token in enumerate(vocabulary.tokens):
        if token in _BYTES:
            vocabulary.types[id] = BYTE
        elif token == unknown:
            vocabulary.types[id], vocabulary.ids["unk"] = UNKNOWN, id


def _by_score(vocabulary: Vocabulary, merges: list[tuple[str, str]], exempt: set[str], path: Path) -> None:
    """Set the scores, after checking that merging by score is the same as merging by rank: whatever two tokens make
    a third (but one of `exempt`) is a merge, and the merges that make one token stand together."""
    ids, known = {token: id for id, token in enumerate(vocabulary.tokens)}, set(merges)
    ranks: dict[str, int] = {}
    last = None
    for rank, (left, right) in enumerate(merges):
        made = left + right
        if made in ranks and made != last:
            raise _unsupported(path, _("its merges are not in the order of scores"))
        ranks.setdefault(made, rank)
        last = made
    if not ranks.keys() <= ids.keys():
        raise ValueError("merges")
    for token, id in ids.items():
        vocabulary.scores[id] = -float(ranks.get(token, len(merges)))
        halves = ((token[:at], token[at:]) for at in range(1, len(token)) if token not in exempt)
        if any(pair not in known and pair[0] in ids and pair[1] in ids for pair in halves):
            raise _unsupported(path, _("its merges leave out a way to make {token}").format(token=token))


def _prefix(found: Mapping[str, Any], path: Path) -> str | None:
    """Give when a space is put before a text: None for never, "each" for always, and Metaspace's "always" and "first",
    which leave out a text that begins with one."""
    normal = _parts(found.get("normalizer"), "normalizers")
    words = _parts(found.get("pre_tokenizer"), "pretokenizers")
    if not words and normal:
        kinds = [step.get("type") for step in normal]
        spaces = normal[-1].get("pattern") == {"String": " "} and normal[-1].get("content") == "▁"
        if kinds[-1] == "Replace" and spaces and kinds[:-1] in ([], ["Prepend"]):
            if kinds[:-1] and normal[0].get("prepend") != "▁":
                raise _unsupported(path, _("its normalizer is {name}").format(name=normal))
            return "each" if kinds[:-1] else None
    if not normal and len(words) == 1 and words[0].get("type") == "Metaspace" and words[0].get("replacement") == "▁":
        scheme = words[0].get("prepend_scheme", "always" if words[0].get("add_prefix_space", True) else "never")
        if words[0].get("split") is False and scheme in ("always", "first", "never"):
            return None if scheme == "never" else scheme
    steps = str([*normal, *words])[:300]
    raise _unsupported(path, _("it changes text in a way that is not SentencePiece's: {steps}").format(steps=steps))


def _parts(setting: Any, name: str) -> list[Mapping[str, Any]]:
    if setting is None:
        return []
    return [part for one in setting[name] for part in _parts(one, name)] if name in setting else [setting]


def _add(vocabulary: Vocabulary, added: Any) -> None:
    """Give the added tokens their types; those that lie behind the vocabulary extend it."""
    for entry in sorted(added, key=lambda entry: entry["id"]):
        id, text = entry["id"], entry["content"]
        kind = CONTROL if entry.get("special") else USER_DEFINED
        if not 0 <= id < len(vocabulary.tokens) + 65_536 or not isinstance(text, str):
            raise ValueError("added")
        while len(vocabulary.tokens) <= id:
            vocabulary.append(f"[PAD{len(vocabulary.tokens)}]", 0.0, UNUSED)
        if vocabulary.types[id] not in (UNKNOWN, BYTE):
            vocabulary.tokens[id], vocabulary.types[id] = text, kind
    greedy = [entry["content"] for entry in added if entry.get("lstrip") or entry.get("rstrip")]
    if greedy:
        sentence = _("Spaces beside {tokens} belong to the token; in llama.cpp they stay.")
        vocabulary.notices.append(sentence.format(tokens=shown(greedy)))


def _surround(vocabulary: Vocabulary, setting: Any) -> None:
    """Read from the post-processor which tokens go around every text."""
    for step in _parts(setting, "processors"):
        if step.get("type") != "TemplateProcessing":
            continue
        names = [next(iter(item.items())) for item in step["single"]]
        at = next(place for place, (kind, _item) in enumerate(names) if kind == "Sequence")
        ids = [_ids(step, item["id"]) for kind, item in names if kind == "SpecialToken"]
        before, after = list(chain(*ids[:at])), list(chain(*ids[at:]))
        if any(type(id) is not int or not 0 <= id < len(vocabulary.tokens) for id in (*before, *after)):
            raise ValueError("ids")
        for name, around in (("bos", before), ("eos", after)):
            if around:
                vocabulary.ids[name] = around[-1]
        vocabulary.add_bos, vocabulary.add_eos = bool(before), bool(after)
        if len(before) > 1 or len(after) > 1:
            vocabulary.notices.append(_("The tokenizer puts several tokens around a text; llama.cpp puts one."))


def _ids(step: Mapping[str, Any], name: str) -> list[int]:
    return list(step["special_tokens"][name]["ids"])


def _unsupported(path: Path, problem: str) -> FormatError:
    return FormatError(
        _("{path} cannot be converted: {problem}.").format(path=path, problem=problem),
        _("Pull a GGUF build of this model, or run it with the transformers backend."),
    )
