"""The catalogue: complete, consistent, and found by repository, revision and file."""

import pytest
from vigtui.core import i18n
from vigtui.core.errors import UsageError
from vigtui.registry import catalogue

FORMATS = {
    "vigogne-instruct-v1", "vigogne-instruct-v2", "vigogne-instruct-v3", "vigogne-instruct-v4",
    "vigogne-chat-v1-early", "vigogne-chat-v1", "vigogne-chat-v2", "vigogne-chat-v3", "vigogne-chat-v3-hf",
    "vicuna-v0", "vicuna-v0-space", "vicuna-v0-newline", "vicuna-v1.1", "vicuna-v1.1-newline", "wizard-vicuna",
    "alpaca", "alpaca-legacy", "alpaca-short", "alpaca-fastchat", "llama-2", "mistral", "falcon", "falcon-chat",
    "chatml", "mpt-chat", "raw", "cv-instruct", "cv-chat", "cv-chat-instruct", "cv-interaction", "cv-bot-user",
    "cv-type0", "cv-type1", "cv-cpp",
}  # fmt: skip


@pytest.mark.parametrize("entry", catalogue.entries(), ids=lambda entry: f"{entry.short} {entry.file}".strip())
def test_every_entry_is_consistent(entry: catalogue.Entry) -> None:
    from vigtui.backends.base import Generation

    assert {entry.format, *entry.formats, *([entry.adapter_format] if entry.adapter_format else [])} <= FORMATS
    assert entry.kind in {"full", "gguf", "ggml", "gptq", "awq", "adapter", "checkpoint"}
    assert entry.status in {"recommended", "legacy", "pretrained", "conversion"}
    assert entry.restriction in {"", "research", "accept", "removed"}
    assert set(entry.notes) in (set(), {"en", "fr"})
    assert (entry.status == "conversion") == bool(catalogue.original(entry))
    assert not entry.base or catalogue.lookup(entry.base)
    Generation(**entry.generation)


def test_the_name_alone_is_not_enough() -> None:
    formats = [
        catalogue.lookup("bofenghuang/vigogne-2-7b-chat", revision).format  # type: ignore[union-attr]
        for revision in ("main", "v2.0", "v1.0", "0" * 40)
    ]
    assert formats == ["vigogne-chat-v2", "vigogne-chat-v2", "vigogne-chat-v1", "vigogne-chat-v2"]
    old = catalogue.lookup("thebloke/wizard-vicuna-13B-GGML", file="wizard-vicuna-13B.ggml.q4_2.bin")
    new = catalogue.lookup("TheBloke/wizard-vicuna-13B-GGML", file="wizard-vicuna-13B.ggmlv3.q4_0.bin")
    assert old and new and old.note() and not new.note()


def test_names_aliases_and_doubts() -> None:
    assert catalogue.named("Vigogne-LoRA-7B").repository == "bofenghuang/vigogne-7b-instruct"  # type: ignore[union-attr]
    assert catalogue.named("llama-7b-hf").repository == "yahma/llama-7b-hf"  # type: ignore[union-attr]
    assert catalogue.named("no-such-model") is None
    assert catalogue.lookup("ehartford/Wizard-Vicuna-7B-Uncensored") is not None


def test_a_name_that_two_repositories_have_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    [first, *_rest] = catalogue.entries()
    twins = (first, replace(first, repository="other/vigogne-2-7b-chat"))
    monkeypatch.setattr(catalogue, "entries", lambda: twins)
    with pytest.raises(UsageError, match="other/vigogne-2-7b-chat"):
        catalogue.named("vigogne-2-7b-chat")


def test_search_needs_every_word_and_puts_the_recommended_first() -> None:
    found = catalogue.search("Vigogne chat")
    assert found[0].status == "recommended"
    assert all(
        "vigogne" in one.repository.casefold() or "vigogne" in one.name.casefold() or one.format for one in found
    )
    assert catalogue.search("vigogne nothing-of-the-kind") == []


def test_conversions_belong_to_the_weights() -> None:
    new, old = (catalogue.lookup("bofenghuang/vigogne-2-7b-chat", revision) for revision in ("main", "v1.0"))
    assert new and old
    assert [one.repository for one in catalogue.conversions(new, "gguf")] == ["TheBloke/Vigogne-2-7B-Chat-GGUF"]
    assert [one.repository for one in catalogue.conversions(old, "gptq")] == ["TheBloke/Vigogne-2-7B-Chat-GPTQ"]


def test_cautions_are_said_in_the_language_in_force() -> None:
    entry = catalogue.named("vigogne-7b-chat")
    bloom = catalogue.named("vigogne-bloom-7b1-instruct")
    assert entry and bloom and "research" in entry.caution()
    i18n.use("fr")
    assert "confirmé" in bloom.note() or i18n.language() == "en"
