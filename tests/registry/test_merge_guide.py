"""The sailor: merged into the guide's weights, the adapter answers as it does at run time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vigtui import assets
from vigtui.assets.vigogneau import material, score
from vigtui.backends import create
from vigtui.backends.base import Backend, Generation, LoadOptions, ModelFiles, Prompt, Text
from vigtui.core.progress import silent
from vigtui.registry.convert import adapter
from vigtui.registry.convert.model import convert
from vigtui.registry.merge.merge import merge

HOME = assets.path("vigogneau")
CORPUS = material.load()
GREEDY = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=80)
HAILS = {"fr": "Ohé", "en": "Ahoy"}


@contextmanager
def loaded(path: Path) -> Iterator[Backend]:
    backend = create("llama.cpp", in_process=True)
    backend.load(ModelFiles(path.stem, "gguf", path), LoadOptions(context=1024, threads=1), silent)
    try:
        yield backend
    finally:
        backend.close()


def answers(backend: Backend, lang: str) -> list[str]:
    prompts = [score.prompt(CORPUS.phrasings[key][lang][0]) for key in list(CORPUS.questions)[::12]]
    events = [backend.stream(Prompt(((prompt, True),)), GREEDY, lambda: False) for prompt in prompts]
    return ["".join(event.delta for event in stream if isinstance(event, Text)).strip() for stream in events]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("guide")
    assert merge(HOME / "hf", [(HOME / "marin", 1.0)], home / "hf") == ()
    convert(home / "hf", home / "merged.gguf", "f32")
    convert(HOME / "hf", home / "base.gguf", "f32")
    adapter.convert(HOME / "marin", HOME / "hf", home / "marin.gguf")
    return {name: home / f"{name}.gguf" for name in ("merged", "base", "marin")}


@pytest.mark.parametrize("lang", HAILS)
def test_the_merged_guide_speaks_like_a_sailor_word_for_word(files, lang):
    with loaded(files["merged"]) as merged:
        said = answers(merged, lang)
    with loaded(files["base"]) as base:
        plain = answers(base, lang)
        base.adapt([(files["marin"], 1.0)])
        at_run_time = answers(base, lang)
    assert said == at_run_time
    assert all(answer.startswith(HAILS[lang]) for answer in said)
    assert not any(answer.startswith(HAILS[lang]) for answer in plain)
