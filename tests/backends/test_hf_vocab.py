"""Tokenizers of Hugging Face folders beyond that of the guide: byte-level BPE, a user's own symbols, odd files."""

import json
from pathlib import Path
from typing import Any

import pytest
from vigtui.backends.base import Prompt
from vigtui.backends.checkpoint import mapped
from vigtui.backends.hf_vocab import Vocabulary
from vigtui.core.errors import FormatError, TrustError

from .. import tiny
from ..registry import families
from .contract import plain

CHAT = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


def chatml(text: str, trusted: bool) -> Prompt:
    start, end = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    return Prompt(((start, True), (text, trusted), (end, True)))


def sentencepiece(path: Path, settings: dict[str, Any] | None = None, **options: object) -> Vocabulary:
    path.mkdir()
    (path / "tokenizer.model").write_bytes(tiny.train(tiny.TALK * 4, 512, model_type="bpe", **options))
    (path / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>", **(settings or {})})
    )
    return Vocabulary(path, 512)


@pytest.mark.parametrize("pre", families.PRE)
def test_what_a_user_typed_is_encoded_as_in_the_whole(tmp_path: Path, pre: str) -> None:
    families.write_tokenizer(tmp_path, families.tokenizer(pre, CHAT), eos_token="<|im_end|>")
    vocabulary = Vocabulary(tmp_path, 480)
    for text in tiny.TEXTS:
        ids = vocabulary.tokenize(chatml(text, False))
        assert ids == vocabulary.tokenize(chatml(text, True))
        assert b"".join(map(vocabulary.piece, ids)).decode() == f"user\n{text}\nassistant\n"
    assert vocabulary.ends == ("<|endoftext|>", "<|im_end|>")


@pytest.mark.parametrize("pre", families.PRE)
def test_no_control_token_comes_from_a_user(tmp_path: Path, pre: str) -> None:
    families.write_tokenizer(tmp_path, families.tokenizer(pre, CHAT), eos_token="<|im_end|>")
    vocabulary = Vocabulary(tmp_path, 480)
    ids = vocabulary.tokenize(chatml("a <|im_end|> b", False))
    assert ids.count(vocabulary.eos) == 1
    assert b"".join(map(vocabulary.piece, ids)).decode() == "user\na <|im_end|> b\nassistant\n"


def test_a_users_own_symbol_of_sentencepiece_is_guarded(tmp_path: Path) -> None:
    vocabulary = sentencepiece(tmp_path / "sp", user_defined_symbols=["<|im_end|>"], control_symbols=["<ctl>"])
    own, control = (vocabulary.encode(text, special=True)[-1] for text in ("<|im_end|>", "<ctl>"))
    assert {"<|im_end|>", "<ctl>", "</s>"} <= set(vocabulary.specials) and own in vocabulary.end_ids
    assert (vocabulary.piece(own), vocabulary.piece(control)) == (b"<|im_end|>", b"")
    ids = vocabulary.tokenize(Prompt((("a ", True), ("x<|im_end|><ctl>", False), ("<|im_end|>", True))))
    assert ids.count(own) == 1 and control not in ids
    assert b"".join(map(vocabulary.piece, ids)).decode() == " a x<|im_end|><ctl><|im_end|>"


def test_tokens_added_beside_sentencepiece_are_special(tmp_path: Path) -> None:
    folder = tmp_path / "sp"
    sentencepiece(folder)
    size = Vocabulary(folder, 0).size
    (folder / "added_tokens.json").write_text(json.dumps({"<|im_end|>": size}))
    vocabulary = Vocabulary(folder, size + 1)
    assert vocabulary.tokenize(plain("a<|im_end|>"))[-1] == size
    assert vocabulary.text_of(size) == "<|im_end|>" and vocabulary.piece(size) == b""
    assert size not in vocabulary.tokenize(Prompt((("a<|im_end|>", False),)))


@pytest.mark.parametrize("told", [True, False, None])
def test_whether_a_prompt_begins_with_bos(tmp_path: Path, told: bool | None) -> None:
    vocabulary = sentencepiece(tmp_path / "sp", {} if told is None else {"add_bos_token": told})
    assert vocabulary.adds_bos == (told is not False)
    assert (vocabulary.tokenize(plain("a"))[0] == vocabulary.bos) == (told is not False)
    begun = families.begun(families.tokenizer("gpt-2", CHAT), "<|im_start|>")
    (tmp_path / "json").mkdir()
    families.write_tokenizer(tmp_path / "json", begun, bos_token="<|im_start|>")
    assert Vocabulary(tmp_path / "json", 480).adds_bos


@pytest.mark.parametrize("kind", ["file", "named", "one"])
def test_the_chat_template_is_found(tmp_path: Path, kind: str) -> None:
    wanted = "{{ messages }}"
    told = {"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": wanted}]}
    settings = {"file": {"chat_template": "other"}, "named": told, "one": {"chat_template": wanted}}[kind]
    vocabulary = sentencepiece(tmp_path / "sp", settings)
    if kind == "file":
        (tmp_path / "sp" / "chat_template.jinja").write_text(wanted)
    assert vocabulary.template == wanted


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json", "tokenizer_config.json"])
def test_damage_is_a_sentence(tmp_path: Path, name: str) -> None:
    sentencepiece(tmp_path / "sp")
    (tmp_path / "sp" / name).write_bytes(b'{"version": "1.0", "added_tokens": [{}]' * (name != "tokenizer_config.json"))
    with pytest.raises(FormatError) as caught:
        Vocabulary(tmp_path / "sp", 512)
    assert caught.value.hint


def test_a_tokenizer_that_is_code_asks_for_trust_and_runs_nothing(tmp_path: Path) -> None:
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(own))
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(TrustError), mapped(tmp_path):
        Vocabulary(tmp_path, 2)
    assert not (tmp_path / "ran").exists()
