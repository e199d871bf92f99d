"""tokenizer.json → GGUF: recognised by what it does, refused by what it does, never guessed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from vigtui import assets
from vigtui.core.errors import FormatError
from vigtui.registry.convert.model import convert

from .. import tiny
from . import families

SHORT = {"intermediate_size": 32, "num_hidden_layers": 1}


def folder(path: Path, text: str, rows: int = 480, **settings: Any) -> Path:
    """A Llama with the tokenizer.json `text` and no tokenizer.model."""
    tiny.folder(path, vocab_size=rows, **SHORT)
    (path / "tokenizer.model").unlink()
    families.write_tokenizer(path, text, **{"eos_token": families.ENDED[0], **settings})
    return path


def changed(text: str, change: Callable[[dict[str, Any]], Any]) -> str:
    made = json.loads(text)
    change(made)
    return json.dumps(made, ensure_ascii=False)


def metadata(source: Path) -> dict[str, Any]:
    import gguf

    convert(source, source.with_suffix(".gguf"))
    fields = gguf.GGUFReader(source.with_suffix(".gguf")).fields
    return {key: field.contents() for key, field in fields.items() if key.startswith("tokenizer.")}


def refused(source: Path, *words: str) -> None:
    target = source.with_suffix(".gguf")
    with pytest.raises(FormatError) as caught:
        convert(source, target)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint and not target.exists()


@pytest.mark.parametrize("pre", families.PRE)
def test_every_way_of_cutting_has_its_name_and_its_tokens(tmp_path: Path, pre: str) -> None:
    text = families.tokenizer(pre)
    found = metadata(folder(tmp_path / "hf", text))
    assert (found["tokenizer.ggml.model"], found["tokenizer.ggml.pre"]) == ("gpt2", pre)
    assert found["tokenizer.ggml.merges"] == [" ".join(pair) for pair in json.loads(text)["model"]["merges"]]
    reference = Tokenizer.from_str(text)
    with tiny.load(tmp_path / "hf.gguf") as model:
        for sentence in [*tiny.SENTENCES, *tiny.TALK, *tiny.TEXTS]:
            assert model.tokenize(sentence) == reference.encode(sentence).ids, sentence


def test_falcon_cuts_ascii_text_as_its_steps_say(tmp_path: Path) -> None:
    text = changed(families.tokenizer("gpt-2"), lambda all: all.update(pre_tokenizer=families.PRE["falcon"]))
    assert metadata(folder(tmp_path / "hf", text))["tokenizer.ggml.pre"] == "falcon"
    with tiny.load(tmp_path / "hf.gguf") as model:
        for sentence in [
            "The quick brown fox, 0123456789 times!",
            "a ASSISTANT: x+=<|user|> 12345",
            "[INST] oui [/INST]",
        ]:
            assert model.tokenize(sentence) == Tokenizer.from_str(text).encode(sentence).ids


@pytest.mark.parametrize(("pre", "whole"), [("llama-bpe", True), ("smaug-bpe", False)])
def test_words_that_no_merge_makes(tmp_path: Path, pre: str, whole: bool) -> None:
    text = changed(families.tokenizer(pre), lambda all: all["model"]["vocab"].update(Bonjour=480))
    convert(folder(tmp_path / "hf", text, rows=481), tmp_path / "out.gguf")
    with tiny.load(tmp_path / "out.gguf") as model:
        found = model.tokenize("Bonjour, comment")
    assert found == Tokenizer.from_str(text).encode("Bonjour, comment").ids and (480 in found) is whole


@pytest.mark.parametrize("pre", ["tekken", "gpt-4o"])
def test_what_llama_cpp_only_comes_close_to_is_told(tmp_path: Path, pre: str) -> None:
    [notice] = convert(folder(tmp_path / "hf", families.tokenizer(pre)), tmp_path / "out.gguf")
    assert "llama.cpp" in notice


def test_the_same_expression_spelt_otherwise(tmp_path: Path) -> None:
    spelt = families.QWEN2.replace(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    )
    step = {"type": "Split", "pattern": {"Regex": spelt}, "behavior": "Removed", "invert": True}
    made = families.sequence({"type": "Sequence", "pretokenizers": [step]}, {**families.BYTES, "use_regex": False})
    text = changed(families.tokenizer("qwen2"), lambda all: all.update(pre_tokenizer=made))
    assert metadata(folder(tmp_path / "hf", text))["tokenizer.ggml.pre"] == "qwen2"
    with tiny.load(tmp_path / "hf.gguf") as model:
        for sentence in [*tiny.SENTENCES, *tiny.TALK]:
            assert model.tokenize(sentence) == Tokenizer.from_str(text).encode(sentence).ids


def cut(regex: str, **how: Any) -> dict[str, Any]:
    step = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False, **how}
    return {"pre_tokenizer": families.sequence(step, {**families.BYTES, "use_regex": False})}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (cut(r"\p{N}{1,2}|\S+"), r"\p{N}{1,2}|\S+"),
        (cut(families.LLAMA3, behavior="MergedWithNext"), "MergedWithNext"),
        (cut(families.BLOOM, behavior="Removed", invert=True), "Removed"),
        (cut(families.QWEN2, pattern={"String": "x"}), "'String': 'x'"),
        ({"pre_tokenizer": {**families.BYTES, "add_prefix_space": True}}, "add_prefix_space"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
        ({"pre_tokenizer": None}, "SentencePiece"),
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Strip"}]}}, "Strip"),
    ],
)
def test_other_ways_of_cutting_are_refused_by_name(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    refused(folder(tmp_path / "hf", changed(families.tokenizer("qwen2"), lambda all: all.update(change))), word)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"type": "Unigram"}, "Unigram"),
        ({"type": "WordPiece"}, "WordPiece"),
        ({"ignore_merges": True}, "ignore_merges"),
        ({"continuing_subword_prefix": "##"}, "continuing_subword_prefix"),
        ({"merges": [["a"]]}, "damaged"),
        ({"merges": None}, "model"),
        ({"merges": []}, "damaged"),
        ({"vocab": {"a": 1 << 40}}, "damaged"),
        ({"vocab": []}, "damaged"),
    ],
)
def test_other_models_are_refused_by_name(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    refused(
        folder(tmp_path / "hf", changed(families.tokenizer("qwen2"), lambda all: all["model"].update(change))), word
    )


def test_an_end_is_no_beginning(tmp_path: Path) -> None:
    found = metadata(folder(tmp_path / "hf", families.tokenizer("qwen2"), bos_token=None, add_bos_token=True))
    assert found["tokenizer.ggml.add_bos_token"] is False
    found = metadata(tiny.folder(tmp_path / "b", tokenizer=tiny.sentencepiece_model(bos_id=-1)))
    assert found["tokenizer.ggml.add_bos_token"] is False


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    text = families.tokenizer("qwen2").replace('"!":1,', '"\\ud83e":1,').replace('"!": 1,', '"\\ud83e": 1,')
    assert "ud83e" in text
    refused(folder(tmp_path / "hf", text), "1")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": 1}', '{"model": {}}', "[" * 200_000])
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    refused(folder(tmp_path / "hf", text), "tokenizer.json")


def test_a_file_of_many_empty_lists_is_not_built(tmp_path: Path) -> None:
    refused(folder(tmp_path / "hf", "[" + "[]," * 6_000_000 + "[]]"), "damaged")


def test_old_merges_of_one_string_are_read(tmp_path: Path) -> None:
    text = families.tokenizer("gpt-2")
    old = changed(text, lambda all: all["model"].update(merges=[" ".join(m) for m in all["model"]["merges"]]))
    assert metadata(folder(tmp_path / "a", old)) == metadata(folder(tmp_path / "b", text))


def test_of_two_equal_merges_the_last_counts(tmp_path: Path) -> None:
    text = changed(families.tokenizer("gpt-2"), lambda all: all["model"]["merges"].extend(all["model"]["merges"][:9]))
    convert(folder(tmp_path / "hf", text), tmp_path / "out.gguf")
    with tiny.load(tmp_path / "out.gguf") as model:
        found = [model.tokenize(sentence) for sentence in tiny.SENTENCES]
    plain = [Tokenizer.from_str(families.tokenizer("gpt-2")).encode(sentence).ids for sentence in tiny.SENTENCES]
    assert found == [Tokenizer.from_str(text).encode(sentence).ids for sentence in tiny.SENTENCES] != plain


def test_added_tokens_have_their_types(tmp_path: Path) -> None:
    def add(made: dict[str, Any]) -> None:
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        made["added_tokens"] += [
            {"id": 480, "content": "<|user|>", "special": True, **flags},
            {"id": 481, "content": "  ", "special": False, **flags},
            {"id": 482, "content": "<mask>", "special": True, **flags, "lstrip": True},
            {"id": 490, "content": "<|far|>", "special": True, **flags},
        ]

    text = changed(families.tokenizer("gpt-2"), add)
    source = folder(tmp_path / "hf", text, rows=488, pad_token="<|user|>")
    notices = convert(source, tmp_path / "out.gguf")
    assert len(notices) == 2 and "<mask>" in notices[0] and "<|far|>" in notices[1]
    found = metadata(source)
    tokens, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    assert tokens[480:] == ["<|user|>", "  ", "<mask>", "[PAD483]", "[PAD484]", "[PAD485]", "[PAD486]", "[PAD487]"]
    assert types[480:] == [3, 4, 3, 5, 5, 5, 5, 5] and types[0] == 3 and types[1] == 1
    assert found["tokenizer.ggml.padding_token_id"] == 480
    reference = Tokenizer.from_str(text)
    with tiny.load(tmp_path / "hf.gguf") as model:
        assert model.tokenize("a<|user|>  b", special=True) == reference.encode("a<|user|>  b").ids
        assert 480 not in model.tokenize("a<|user|>")


def test_what_goes_around_a_text(tmp_path: Path) -> None:
    text = families.tokenizer("llama-bpe", ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"))
    begun = families.begun(text, "<|begin_of_text|>")
    found = metadata(folder(tmp_path / "a", begun, eos_token="<|end_of_text|>"))
    assert found["tokenizer.ggml.add_bos_token"] is True and found["tokenizer.ggml.bos_token_id"] == 0
    found = metadata(folder(tmp_path / "b", begun, eos_token="<|end_of_text|>", add_bos_token=False))
    assert found["tokenizer.ggml.add_bos_token"] is False
    found = metadata(folder(tmp_path / "c", text, eos_token="<|end_of_text|>"))
    assert found["tokenizer.ggml.add_bos_token"] is False and found["tokenizer.ggml.add_eos_token"] is False


@pytest.mark.parametrize("id", [None, "0", [0], -1, 1 << 40])
def test_an_id_around_a_text_that_is_none_is_refused(tmp_path: Path, id: Any) -> None:
    text = families.begun(families.tokenizer("gpt-2"), "<|endoftext|>")
    ids = {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [id], "tokens": []}}
    refused(
        folder(tmp_path / "hf", changed(text, lambda all: all["post_processor"].update(special_tokens=ids))), "damaged"
    )


def test_every_token_that_ends_an_answer(tmp_path: Path) -> None:
    text = families.tokenizer("qwen2", ("<|endoftext|>", "<stop>"))
    source = folder(tmp_path / "hf", text, eos_token="<|endoftext|>")
    (source / "generation_config.json").write_text('{"eos_token_id": [0, 1]}')
    found = metadata(source)
    assert (found["tokenizer.ggml.eos_token_id"], found["tokenizer.ggml.eot_token_id"]) == (0, 1)


def test_an_end_that_only_the_configuration_knows(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", families.tokenizer("qwen2"), eos_token=None)
    (source / "generation_config.json").write_text('{"eos_token_id": 0}')
    assert metadata(source)["tokenizer.ggml.eos_token_id"] == 0


def test_a_beginning_does_not_end_an_answer(tmp_path: Path) -> None:
    found = metadata(tiny.folder(tmp_path / "hf", eos_token_id=1, bos_token_id=1))
    assert found["tokenizer.ggml.eos_token_id"] == 2 and "tokenizer.ggml.eot_token_id" not in found


def test_an_end_that_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    refused(folder(tmp_path / "hf", families.tokenizer("qwen2"), eos_token=None), "ends a text")


def test_the_special_tokens_map_is_read(tmp_path: Path) -> None:
    source = folder(tmp_path / "hf", families.tokenizer("qwen2"), eos_token=None)
    (source / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<|endoftext|>"}}))
    assert metadata(source)["tokenizer.ggml.eos_token_id"] == 0


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    refused(folder(tmp_path / "hf", families.tokenizer("qwen2"), rows=479), "480", "479")


def test_a_tiktoken_file_beside_tokenizer_json_is_left_alone(tmp_path: Path) -> None:
    source = folder(tmp_path / "hf", families.tokenizer("qwen2"))
    (source / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    assert metadata(source)["tokenizer.ggml.model"] == "gpt2"


def test_no_tokenizer_is_named(tmp_path: Path) -> None:
    source = folder(tmp_path / "hf", families.tokenizer("qwen2"))
    (source / "tokenizer.json").unlink()
    (source / "vocab.json").write_text("{}")
    refused(source, "tokenizer.json", "tokenizer.model")


@pytest.fixture(scope="module")
def disguised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with SentencePiece's vocabulary in tokenizer.json only."""
    path = tmp_path_factory.mktemp("disguised") / "hf"
    shutil.copytree(assets.path("vigogneau/hf"), path)
    (path / "tokenizer.model").unlink()
    return path


SPACES = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]


def test_sentencepiece_in_tokenizer_json_gives_the_same_tokens(disguised: Path, tmp_path: Path) -> None:
    shutil.copytree(disguised, tmp_path / "hf")
    text = (disguised / "tokenizer.json").read_text(encoding="utf-8")
    old = {"normalizer": {"type": "Sequence", "normalizers": SPACES}, "pre_tokenizer": None}
    text = changed(text, lambda all: all.update(old))
    (tmp_path / "hf" / "tokenizer.json").write_text(text, encoding="utf-8")
    assert convert(tmp_path / "hf", tmp_path / "out.gguf", "q8_0") == ()
    reference = Tokenizer.from_str(text)
    with tiny.load(tmp_path / "out.gguf") as model, tiny.load(assets.path("vigogneau/vigogneau.gguf")) as own:
        for sentence in [*tiny.SENTENCES, *tiny.TALK, *tiny.TEXTS]:
            ids = model.tokenize(sentence)
            assert ids == reference.encode(sentence, add_special_tokens=False).ids == own.tokenize(sentence)
        assert model.tokenize("Bonjour</s>", special=True) == reference.encode("Bonjour</s>").ids


def test_a_metaspace_differs_before_spaces_and_says_so(disguised: Path, tmp_path: Path) -> None:
    assert len(convert(disguised, tmp_path / "a.gguf")) == 1
    text = (disguised / "tokenizer.json").read_text(encoding="utf-8")
    shutil.copytree(disguised, tmp_path / "hf")
    text = changed(text, lambda all: all["pre_tokenizer"].update(prepend_scheme="first"))
    (tmp_path / "hf" / "tokenizer.json").write_text(text, encoding="utf-8")
    assert len(convert(tmp_path / "hf", tmp_path / "b.gguf")) == 2


def swap(made: dict[str, Any]) -> None:
    merges = made["model"]["merges"]
    names = ["".join(merge) for merge in merges]
    twice = next(i for i in range(len(names) - 2) if names[i] == names[i + 1])
    merges.append(merges.pop(twice))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda all: all["model"].update(byte_fallback=False), "bytewise"),
        (lambda all: all["model"]["vocab"].pop("<0x41>"), "bytewise"),
        (lambda all: all["pre_tokenizer"].update(split=True), "Metaspace"),
        (lambda all: all.update(normalizer={"type": "NFKC"}), "NFKC"),
        (lambda all: all["model"]["merges"].pop(), "leave out"),
        (swap, "order"),
    ],
)
def test_what_is_not_sentencepiece_is_refused(disguised: Path, tmp_path: Path, change: Any, word: str) -> None:
    shutil.copytree(disguised, tmp_path / "hf")
    text = changed((disguised / "tokenizer.json").read_text(encoding="utf-8"), change)
    (tmp_path / "hf" / "tokenizer.json").write_text(text, encoding="utf-8")
    refused(tmp_path / "hf", word)
