from collections.abc import Iterator
from pathlib import Path

import pytest
from vigtui import assets
from vigtui.backends.base import LoadOptions, ModelFiles
from vigtui.backends.llama_cpp import LlamaCppBackend
from vigtui.core.progress import silent

from ..tiny import write_gguf, write_llama

GUIDE = ModelFiles("vigogneau", "gguf", assets.path("vigogneau/vigogneau.gguf"))


@pytest.fixture(scope="session")
def random_hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of a random Llama."""
    return write_llama(tmp_path_factory.mktemp("random") / "hf")


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """A random Llama as GGUF: it never ends by itself, and half its bytes are no UTF-8."""
    path = write_gguf(tmp_path_factory.mktemp("random") / "random.gguf")
    return ModelFiles("random", "gguf", path)


@pytest.fixture
def random_engine(random_model: ModelFiles) -> Iterator[LlamaCppBackend]:
    engine = LlamaCppBackend()
    engine.load(random_model, LoadOptions(), silent)
    yield engine
    engine.close()


@pytest.fixture
def guide_engine() -> Iterator[LlamaCppBackend]:
    engine = LlamaCppBackend()
    engine.load(GUIDE, LoadOptions(), silent)
    yield engine
    engine.close()
