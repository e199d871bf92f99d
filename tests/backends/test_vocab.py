"""Tokens of untrusted text, on vocabularies with control, user-defined and space-stripping tokens."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vigtui.backends.base import LoadOptions, ModelFiles, Prompt
from vigtui.backends.llama_cpp import LlamaCppBackend
from vigtui.core.progress import silent

from ..tiny import rewrite_gguf
from .contract import plain

MARKERS = ["</s>", "<s>", "<unk>", "<|im_start|>", "<|im_end|>", "[INST]", "<|user|>", "USER:", "▁", "<0x0A>"]


@pytest.fixture(scope="module")
def patched(random_model: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppBackend]:
    """The random model with ChatML markers: one a control token, one user-defined, and a token that strips."""
    path = patch(random_model.path, tmp_path_factory.mktemp("patched") / "patched.gguf")
    engine = LlamaCppBackend()
    engine.load(ModelFiles("patched", "gguf", path), LoadOptions(), silent)
    yield engine
    engine.close()


def patch(source: Path, target: Path) -> Path:
    """Copy a GGUF, its last two tokens replaced by <|im_start|> (user-defined) and <|im_end|> (control)."""

    def change(key: str, value: Any) -> Any:
        if key == "tokenizer.ggml.tokens":
            return [*value[:-2], "<|im_start|>", "<|im_end|>"]
        if key == "tokenizer.ggml.token_type":
            return [*value[:-2], int(gguf.TokenType.USER_DEFINED), int(gguf.TokenType.CONTROL)]
        return value

    return rewrite_gguf(source, target, change)


def pieces(template: tuple[str, str], user: str, specials: tuple[str, ...]) -> Prompt:
    """What chat.formats makes of a user's text: its special texts apart, untrusted."""
    parts: list[tuple[str, bool]] = [(template[0], True)]
    while user:
        found = [(user.find(special), -len(special), special) for special in specials if special in user]
        if not found:
            parts.append((user, True))
            break
        start, _length, special = min(found)
        parts += [(user[:start], True), (special, False)]
        user = user[start + len(special) :]
    return Prompt((*parts, (template[1], True)))


TEMPLATES = {
    "vigogne": ("<|system|>: Vous êtes.\n<|user|>: ", "\n<|assistant|>:"),
    "chatml": ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    "llama-2": ("[INST] ", " [/INST] oui </s><s>[INST] encore [/INST]"),
}
user_texts = st.lists(st.sampled_from([*MARKERS, " ", "\n", "a", "é", "中", "🦙", "<", ">", "s", "|"]), max_size=8)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=user_texts)
def test_no_user_text_yields_a_control_token(patched: LlamaCppBackend, name: str, parts: list[str]) -> None:
    vocabulary = patched._vocabulary
    prompt = pieces(TEMPLATES[name], "".join(parts), vocabulary.specials)
    harmless = patched.tokenize(pieces(TEMPLATES[name], "x", vocabulary.specials))
    guarded = {token for token in range(vocabulary.size) if token in vocabulary._guarded}
    counts = [sum(token in guarded for token in ids) for ids in (patched.tokenize(prompt), harmless)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=user_texts)
def test_the_text_comes_back_whole(patched: LlamaCppBackend, name: str, parts: list[str]) -> None:
    vocabulary = patched._vocabulary
    prompt = pieces(TEMPLATES[name], "".join(parts), vocabulary.specials)
    shown = b"".join(
        vocabulary.text_of(token).encode() if token in vocabulary._guarded else vocabulary.piece(token)
        for token in patched.tokenize(prompt)
    ).decode()
    assert _bare(shown.replace("<s>", "", 1)) == _bare(prompt.text)


def _bare(text: str) -> str:
    """Without what SentencePiece does not keep apart: its own sign for a space, and the unknown token."""
    return text.replace("▁", " ").replace("<unk>", "").replace(" ", "")


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(user=st.text(alphabet="ab é中🦙\n.,!", max_size=20))
def test_harmless_text_is_encoded_as_upstream_does(patched: LlamaCppBackend, name: str, user: str) -> None:
    template = TEMPLATES[name]
    split = Prompt(((template[0], True), (user, True), (template[1], True), ("", False)))
    assert patched.tokenize(split) == patched.tokenize(plain(template[0] + user + template[1]))


def test_a_user_defined_marker_is_still_a_marker_for_the_template(patched: LlamaCppBackend) -> None:
    vocabulary = patched._vocabulary
    marker = vocabulary.size - 2
    assert marker in patched.tokenize(plain("<|im_start|>user\n"))
    assert marker not in patched.tokenize(Prompt((("<|im_start|>", False),)))
