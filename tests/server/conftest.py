from collections.abc import Iterator

import openai
import pytest

from ..tiny import write_gguf
from .process import Server, serving


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a GGUF file that talks until it is stopped."""
    return str(write_gguf(tmp_path_factory.mktemp("endless") / "endless.gguf", context=65536))


@pytest.fixture(scope="session")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the embedded model."""
    with serving(tmp_path_factory.mktemp("guide")) as server:
        yield server


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory, endless: str) -> Iterator[Server]:
    """A server of a model that never ends by itself, where one request may wait."""
    with serving(tmp_path_factory.mktemp("noise"), endless, "--ctx", "65536", "--queue", "1") as server:
        yield server


@pytest.fixture
def client(guide: Server) -> Iterator[openai.OpenAI]:
    """The real client of `guide`."""
    with guide.client() as client:
        yield client
