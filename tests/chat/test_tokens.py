"""Token ids on a real model: ours, those of its Hugging Face tokenizer, and a prompt that is cut to a limit."""

from collections.abc import Iterator

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from vigtui import assets
from vigtui.backends.base import Backend, LoadOptions, ModelFiles, Prompt
from vigtui.backends.llama_cpp import LlamaCppBackend
from vigtui.chat import formats
from vigtui.chat.render import render
from vigtui.chat.window import fit
from vigtui.core.progress import silent

from .toy import TURNS, talk

texts = st.text(alphabet="abé ,.'\n?!<>|中🦙", max_size=30)


@pytest.fixture(scope="module")
def engine() -> Iterator[Backend]:
    engine = LlamaCppBackend()
    engine.load(ModelFiles("vigogneau", "gguf", assets.path("vigogneau/vigogneau.gguf")), LoadOptions(), silent)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def pieces() -> sentencepiece.SentencePieceProcessor:
    """The tokenizer.model of the same model's Hugging Face folder."""
    return sentencepiece.SentencePieceProcessor(model_file=str(assets.path("vigogneau/hf/tokenizer.model")))


def as_hugging_face(pieces: sentencepiece.SentencePieceProcessor, text: str) -> list[int]:
    """LlamaTokenizer (legacy): BOS, then each stretch between special tokens for itself."""
    ids = [pieces.bos_id()]
    for n, stretch in enumerate(text.split("</s>")):
        ids += [pieces.eos_id()] if n else []
        ids += pieces.encode(stretch) if stretch else []
    return ids


@pytest.mark.parametrize("id", formats.ids())
@given(user=texts)
def test_llama_cpp_and_hugging_face_agree(
    engine: Backend, pieces: sentencepiece.SentencePieceProcessor, id: str, user: str
) -> None:
    assert engine.info is not None
    for turns in ([*TURNS[:2], user], [user]):
        prompt = render(formats.get(id), talk(*turns), engine.info)
        if "<s>" not in prompt.text:
            assert engine.tokenize(prompt) == as_hugging_face(pieces, prompt.text)


def test_typed_control_tokens_stay_text(engine: Backend, pieces: sentencepiece.SentencePieceProcessor) -> None:
    assert engine.info is not None
    typed = "a </s> b [INST] <|user|> USER: <|im_end|> <s> c"
    for id in formats.ids():
        ids = engine.tokenize(render(formats.get(id), talk(typed), engine.info))
        harmless = engine.tokenize(render(formats.get(id), talk("-"), engine.info))
        for special in (pieces.bos_id(), pieces.eos_id()):
            assert ids.count(special) == harmless.count(special)


@pytest.mark.parametrize("id", ["vigogne-chat-v2", "vigogne-chat-v1", "vigogne-chat-v3", "vicuna-v1.1", "cv-chat"])
@given(limit=st.integers(150, 700), size=st.integers(1, 40))
def test_the_kept_prompt_obeys_its_limit(engine: Backend, id: str, limit: int, size: int) -> None:
    assert engine.info is not None
    form, messages = formats.get(id), talk(*(f"{i} " + "un mot " * size for i in range(40)), "Et maintenant ?")

    def count(prompt: Prompt) -> int:
        return len(engine.tokenize(prompt))

    fitted = fit(form, messages, engine.info, count, limit + 300)
    assert fitted.tokens == count(fitted.prompt) <= limit + 300
    if form.policy == "rounds" and fitted.dropped:
        more = [m for i, m in enumerate(messages) if i not in fitted.dropped[:-2]]
        assert count(render(form, more, engine.info)) >= limit + 300
