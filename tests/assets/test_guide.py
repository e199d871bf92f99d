"""The embedded guide: the rules of its corpus, the sizes of its files, and the gates that the shipped model passes."""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vigtui import assets
from vigtui.assets.vigogneau import material, overlap, score
from vigtui.backends import create
from vigtui.backends.base import Backend, Generation, LoadOptions, ModelFiles, Prompt, Text
from vigtui.core.progress import silent

HOME = assets.path("vigogneau")
LANGUAGES = material.LANGUAGES
CORPUS = material.load()
GREEDY = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=80)


def size(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )


def test_there_are_sixty_to_eighty_questions_with_forty_phrasings_in_each_language():
    assert 60 <= len(CORPUS.questions) <= 80
    short = [(key, lang) for key in CORPUS.questions for lang in LANGUAGES if len(CORPUS.phrasings[key][lang]) < 40]
    assert not short


def test_held_out_questions_are_enough():
    test = score.held_out()
    assert set(test["rewordings"]) == set(CORPUS.questions)
    assert all(len(table[lang]) >= 2 for table in test["rewordings"].values() for lang in LANGUAGES)
    assert sum(len(test["off_topic"][lang]) for lang in LANGUAGES) >= 40


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_rewording_shares_more_than_the_limit_with_a_training_phrasing(lang):
    phrasings = [(text, overlap.content(text)) for table in CORPUS.phrasings.values() for text in table[lang]]
    close = [
        (rewording, text)
        for table in score.held_out()["rewordings"].values()
        for rewording in table[lang]
        for text, words in phrasings
        if overlap.overlap(overlap.content(rewording), words) > overlap.LIMIT
    ]
    assert not close


def test_the_measure_counts_content_words_only():
    assert overlap.content("Comment est-ce que je télécharge un modèle, s'il te plaît ?") == {"telecharge", "modele"}
    assert overlap.overlap(overlap.content("download a big model"), overlap.content("how do I download it")) == 1 / 3


@pytest.mark.parametrize("lang", LANGUAGES)
def test_an_answer_holds_its_own_key_and_no_other(lang):
    answers = CORPUS.answers
    keys = {name: answers[name][f"key_{lang}"] for name in (*CORPUS.questions, material.DECLINE)}
    assert all(keys[name] in answers[name][lang] for name in keys)
    assert not [(a, b) for a in keys for b in keys if a != b and keys[a] in answers[b][lang]]


def test_every_command_in_an_answer_exists():
    cli = pytest.importorskip("vigtui.tui.cli")
    texts = [text for table in CORPUS.answers.values() for text in table.values()]
    named = {word for text in texts for word in re.findall(r"`vigtui ([a-z]+)", text)}
    assert named
    assert named <= cli.commands()


def test_files_are_small_enough():
    assert size(HOME / "vigogneau.gguf") + size(HOME / "marin.gguf") <= 7e6
    assert size(HOME / "hf" / "model.safetensors") <= 12e6
    assert size(HOME / "marin") <= 1e6


def test_the_folder_says_what_the_model_is():
    config = json.loads((HOME / "hf" / "config.json").read_text(encoding="utf-8"))
    assert config["hidden_size"] % 256 == 0 and config["intermediate_size"] % 256 == 0
    assert config["max_position_embeddings"] == 1024
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)
    adapter = json.loads((HOME / "marin" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (adapter["r"], adapter["base_model_name_or_path"]) == (8, "vigogneau-hf")


@pytest.fixture(scope="module")
def guide() -> Iterator[Backend]:
    backend = create("llama.cpp", in_process=True)
    backend.load(ModelFiles("vigogneau", "gguf", HOME / "vigogneau.gguf"), LoadOptions(context=1024), silent)
    yield backend
    backend.close()


def ask(backend: Backend, prompt: str, known: Callable[[str], bool] = lambda text: False) -> str:
    parts: list[str] = []
    for event in backend.stream(Prompt(((prompt, True),)), GREEDY, lambda: known("".join(parts))):
        if isinstance(event, Text):
            parts.append(event.delta)
    return "".join(parts).strip()


def test_the_shipped_model_passes_every_gate(guide):
    result = score.examine(lambda prompt, known: ask(guide, prompt, known), list(score.cases()))
    assert not result.failures()


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("style", ["short", "child", "formal"])
def test_a_system_message_changes_the_style(guide, lang, style):
    right = [
        ask(guide, score.prompt(CORPUS.phrasings[key][lang][0], CORPUS.systems[style][0]))
        == material.answer(CORPUS, key, lang, style)
        for key in CORPUS.questions
    ]
    assert sum(right) >= 0.9 * len(right)


@pytest.mark.parametrize(("lang", "hail"), [("fr", "Ohé"), ("en", "Ahoy")])
def test_the_adapter_speaks_like_a_sailor_and_still_knows(guide, lang, hail):
    guide.adapt([(HOME / "marin.gguf", 1.0)])
    try:
        keys = list(CORPUS.questions)[::4]
        answers = [ask(guide, score.prompt(CORPUS.phrasings[key][lang][0])) for key in keys]
    finally:
        guide.adapt([])
    assert all(answer.startswith(hail) for answer in answers)
    known = [CORPUS.answers[key][f"key_{lang}"] in answer for key, answer in zip(keys, answers, strict=True)]
    assert sum(known) >= 0.9 * len(known)


def test_the_model_card_states_the_scores():
    card = (HOME / "README.md").read_text(encoding="utf-8")
    assert "off-topic" in card and "Q8_0" in card
    assert not re.search(r"/(tmp|work|home)/", card)


def test_the_corpus_is_valid_toml():
    for path in (HOME / "corpus").glob("*.toml"):
        assert tomllib.loads(path.read_text(encoding="utf-8")), path.name
