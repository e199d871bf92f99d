"""No text of a message becomes a control token, in any format, and nothing else about the prompt changes."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vigtui.backends.base import LoadOptions, Message, ModelFiles, Prompt
from vigtui.backends.llama_cpp import LlamaCppBackend
from vigtui.chat import formats
from vigtui.chat.formats import Format
from vigtui.chat.render import folds_system, render
from vigtui.core.errors import ContextError, FormatError, UsageError
from vigtui.core.progress import silent

from ..tiny import write_gguf
from .toy import CHATML, LLAMA, TURNS, controls, talk, tokens

MARKERS = ["</s>", "<s>", "<unk>", "<|im_start|>", "<|im_end|>", "[INST]", "<|user|>", "USER:", "### Response:"]
CHATML_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] | trim + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
OWN = Format(id="own", template=CHATML_TEMPLATE)
FORMATS = [*formats.everything()[0], OWN]
# Pieces of markers beside each other make every way in which a text can spell a special token or half of one.
parts = st.sampled_from([*MARKERS, "<", "/s>", "s>", ">", "</", "<|", "|>", "im_end", " ", "\n", "\ue000", "é", "mot"])
texts = st.lists(parts, max_size=6).map("".join)
conversations = st.lists(texts, min_size=1, max_size=5).filter(lambda turns: len(turns) % 2 == 1)


@pytest.mark.parametrize("info", [LLAMA, CHATML], ids=["llama", "chatml"])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.id)
@given(turns=conversations, system=texts)
def test_no_text_becomes_a_control_token(form: Format, info, turns: list[str], system: str) -> None:
    info = replace(info, adds_bos=False)
    given_ = render(form, [Message("system", system), *talk(*turns)], info)
    harmless = ["-" for _text in turns]
    expected = render(form, [Message("system", "-" if system else ""), *talk(*harmless)], info)
    assert controls(given_, info) == controls(expected, info)
    plain = render(form, [Message("system", system), *talk(*turns)], replace(info, specials=()))
    assert plain.text in (given_.text, re.sub(r"\A(<s>)+", "", given_.text))  # unguarded, a typed <s> passes for BOS


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.id)
@given(turns=conversations)
def test_harmless_text_stays_one_trusted_piece(form: Format, turns: list[str]) -> None:
    clean = [text.replace("<", "‹").replace(">", "›").replace("|", "¦") for text in turns]
    assert len(render(form, talk(*clean), LLAMA).pieces) == 1


def test_pieces_are_the_text_between_what_the_user_typed() -> None:
    prompt = render(formats.get("llama-2"), talk("a</s>b", "c<s>", "d"), LLAMA)
    assert prompt.pieces == (
        ("[INST] a", True),
        ("</s>", False),
        ("b [/INST] c", True),
        ("<s>", False),
        (" </s><s>[INST] d [/INST]", True),
    )
    assert prompt.messages == tuple(talk("a</s>b", "c<s>", "d"))


def test_a_special_token_cannot_be_typed_in_halves() -> None:
    prompt = render(formats.get("raw"), talk("a <", "/s", "> b"), LLAMA)
    assert prompt.text == "a </s> b"
    assert controls(prompt, LLAMA) == []
    assert tokens(prompt).count("</s>") == 0
    assert render(formats.get("raw"), talk("<s", "", ">"), LLAMA).text == "<s>"


def test_blanks_that_a_template_takes_off_do_not_help() -> None:
    form = Format(id="own", template="{% for m in messages %}{{ m.content | trim }}/s> <{% endfor %}")
    for text in ("a < ", "\n/s>a", " < "):
        prompt = render(form, talk(text, text, text), LLAMA)
        assert controls(prompt, LLAMA) == [] and len(prompt.pieces) > 1


def test_a_half_that_meets_nothing_is_left_alone() -> None:
    prompt = render(formats.get("vicuna-v1.1"), talk("1 <", "s> and >", "im_end"), LLAMA)
    assert len(prompt.pieces) == 1


def test_bos_is_never_written_at_the_start() -> None:
    own = Format(id="own", template="{{ bos_token }}{{ messages[0]['content'] }}")
    assert render(own, talk("a"), LLAMA).text == "a"
    assert render(own, talk("<s>a"), LLAMA).pieces == (("<s>", False), ("a", True))
    assert render(own, talk("a"), replace(LLAMA, adds_bos=False)).text == "<s>a"
    for form in FORMATS:
        assert not render(form, talk(*TURNS), LLAMA).text.startswith("<s>")


def test_who_speaks_last() -> None:
    raw = formats.get("raw")
    assert render(raw, talk("a", ""), LLAMA) == render(raw, talk("a"), LLAMA)
    for turns in ([], talk("a", "b"), [Message("user", "a"), Message("tool", "b"), Message("user", "c")]):
        with pytest.raises(UsageError):
            render(raw, turns, LLAMA)


NO_SYSTEM = "{% for m in messages if m.role != 'system' %}[{{ m.role }}] {{ m.content }}{% endfor %}"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + NO_SYSTEM


@pytest.mark.parametrize("template", [NO_SYSTEM, REFUSES])
def test_a_template_without_system_gets_it_in_the_first_message(template: str) -> None:
    form = Format(id="own", template=template)
    assert folds_system(form, LLAMA) and not folds_system(OWN, LLAMA)
    prompt = render(form, [Message("system", "Sois bref."), *talk("a", "b", "c")], LLAMA)
    assert prompt.text == "[user] Sois bref.\n\na[assistant] b[user] c"
    assert render(form, talk("a"), LLAMA).text == "[user] a"
    assert render(form, [Message("system", ""), *talk("a")], LLAMA).text == "[user] a"


@pytest.mark.parametrize("form", [formats.get("vigogne-chat-v2"), OWN])
def test_what_no_context_holds_is_not_the_templates_fault(form: Format) -> None:
    with pytest.raises(ContextError) as caught:
        render(form, [Message("user", "é" * (3 << 20))], LLAMA)
    assert caught.value.hint


def test_a_damaged_template_is_one_sentence() -> None:
    with pytest.raises(FormatError) as error:
        render(Format(id="own", template="{% for m in messages %}"), talk("a"), LLAMA)
    assert "\n" not in str(error.value) and "--format" in error.value.hint


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppBackend]:
    """A real SentencePiece vocabulary with <s>, </s> and <unk>."""
    path = write_gguf(tmp_path_factory.mktemp("random") / "random.gguf")
    engine = LlamaCppBackend()
    engine.load(ModelFiles("random", "gguf", path), LoadOptions(), silent)
    yield engine
    engine.close()


@pytest.mark.parametrize("form", formats.everything()[0], ids=lambda form: form.id)
@given(turns=conversations)
def test_with_a_real_tokenizer(engine: LlamaCppBackend, form: Format, turns: list[str]) -> None:
    assert engine.info is not None
    prompt = render(form, talk(*turns), engine.info)
    ids = engine.tokenize(prompt)
    special = {engine.tokenize(Prompt(((text, True),)))[-1]: text for text in ("<s>", "</s>", "<unk>")}
    made = [special[id] for id in ids if special.get(id, "<unk>") != "<unk>"]  # <unk> may stand for an unknown byte
    expected = render(form, talk(*("-" for _text in turns)), engine.info)
    assert made == ["<s>", *(text for text in controls(expected, engine.info) if text != "<unk>")]


@pytest.mark.parametrize("form", formats.everything()[0], ids=lambda form: form.id)
@given(turns=conversations)
def test_harmless_text_gives_the_ids_of_the_whole_string(
    engine: LlamaCppBackend, form: Format, turns: list[str]
) -> None:
    assert engine.info is not None
    clean = [text.replace("<", "‹").replace(">", "›") for text in turns]
    prompt = render(form, talk(*clean), engine.info)
    assert engine.tokenize(prompt) == engine.tokenize(Prompt(((prompt.text, True),)))
