"""Hugging Face folders, and the transformers backend as it has loaded them."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from vigtui import assets
from vigtui.backends.base import Generation, LoadOptions, ModelFiles
from vigtui.backends.engine import Engine
from vigtui.backends.transformers import TransformersBackend
from vigtui.core.progress import silent

from .. import tiny
from .contract import never, plain

GUIDE = assets.path("vigogneau/hf")
MARIN = assets.path("vigogneau/marin")
FREE = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=40)


def loaded(path: Path, options: LoadOptions = LoadOptions()) -> TransformersBackend:  # noqa: B008 - it is frozen
    engine = TransformersBackend()
    engine.load(ModelFiles("model", "safetensors", path), options, silent)
    return engine


def changed(source: Path, target: Path, **changes: object) -> Path:
    """A copy of a model folder with these values in its config.json."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **changes}))
    return target


@pytest.fixture(scope="module")
def guide() -> Iterator[TransformersBackend]:
    engine = loaded(GUIDE)
    yield engine
    engine.close()


@pytest.fixture
def hf(guide: TransformersBackend) -> TransformersBackend:
    """The guide, with an empty cache and no adapter."""
    guide.adapt([])
    list(guide.stream(plain("Ω"), dataclasses.replace(FREE, max_tokens=1), never))
    return guide


@pytest.fixture(scope="module")
def noise(random_hf: Path) -> Iterator[TransformersBackend]:
    engine = loaded(random_hf)
    yield engine
    engine.close()


def byte_level(path: Path) -> Path:
    """A random GPT-2 with a byte-level tokenizer.json and no BOS; `<|user|>` is an added token that is not special."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator(tiny.TALK * 3, trainer)
    words.add_tokens([AddedToken("<|user|>", normalized=False), AddedToken("  ", normalized=False)])
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=words.get_vocab_size(), n_embd=32, n_layer=2, n_head=2, n_positions=256, bos_token_id=0,
        eos_token_id=0, initializer_range=0.4,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(path)
    words.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
    )
    return path


@pytest.fixture(scope="module")
def process() -> Iterator[Engine]:
    engine = Engine("transformers")
    engine.load(ModelFiles("vigogneau-hf", "safetensors", GUIDE), LoadOptions(), silent)
    yield engine
    engine.close()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)
