from collections.abc import Iterator

import pytest
from vigtui.backends.base import Backend, Generation, LoadOptions, Message, ModelFiles, Prompt
from vigtui.backends.echo import EchoBackend
from vigtui.core.progress import silent

from .contract import BackendContract, never, text_of


def load(engine: Backend, model: ModelFiles) -> Backend:
    engine.load(model, LoadOptions(), silent)
    return engine


class TestEcho(BackendContract):
    @pytest.fixture
    def engine(self, random_model: ModelFiles) -> Iterator[Backend]:
        yield load(EchoBackend(), random_model)


def test_replies_come_in_turn_and_then_the_question(random_model: ModelFiles) -> None:
    engine = load(EchoBackend(["un", "deux mots"]), random_model)
    prompt = Prompt((("x", True),), (Message("user", "salut toi"),))
    answers = [text_of(list(engine.stream(prompt, Generation(), never))) for _turn in range(3)]
    assert answers == ["un", "deux mots", "salut toi"]
