"""References: every way to write one, and a sentence for every other text."""

from pathlib import Path

import pytest
from vigtui.core.errors import NotFoundError, UsageError
from vigtui.registry.reference import Reference, parse


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("vigogne-2-7b-chat", {"repository": "TheBloke/Vigogne-2-7B-Chat-GGUF"}),
        ("Vigogne-2-7B-Chat@v1.0", {"repository": "bofenghuang/vigogne-2-7b-chat", "revision": "v1.0"}),
        ("vigogne-2-7b-chat:Q4_K_M", {"repository": "TheBloke/Vigogne-2-7B-Chat-GGUF", "tag": "Q4_K_M"}),
        (
            "vigogne-2-7b-chat@v1.0:Q4_K_M",
            {"repository": "bofenghuang/vigogne-2-7b-chat", "revision": "v1.0", "tag": "Q4_K_M"},
        ),
        ("org/repo", {"repository": "org/repo"}),
        ("org/repo:Q4_K_M", {"repository": "org/repo", "tag": "Q4_K_M"}),
        ("org/repo@v2.0", {"repository": "org/repo", "revision": "v2.0"}),
        ("org/repo:model.Q4_0.gguf", {"repository": "org/repo", "file": "model.Q4_0.gguf"}),
        ("hf://org/repo", {"repository": "org/repo"}),
        ("hf://org/repo@v1:sub/a.gguf", {"repository": "org/repo", "revision": "v1", "file": "sub/a.gguf"}),
        ("hf.co/org/repo", {"repository": "org/repo"}),
        ("https://huggingface.co/org/repo/", {"repository": "org/repo"}),
        ("https://huggingface.co/org/repo/resolve/main/a.gguf", {"repository": "org/repo", "file": "a.gguf"}),
        ("https://huggingface.co/org/repo/tree/v1.0", {"repository": "org/repo", "revision": "v1.0"}),
        ("https://example.org/x/a.gguf?d=1", {"url": "https://example.org/x/a.gguf?d=1"}),
        ("http://127.0.0.1:8/a.gguf", {"url": "http://127.0.0.1:8/a.gguf"}),
        ("file:///tmp/a%20b.gguf", {"path": Path("/tmp/a b.gguf")}),
    ],
)
def test_what_can_be_written(text: str, wanted: dict[str, object]) -> None:
    assert parse(text) == Reference(text, **wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["", " ", "a/b/c", "org/", "/repo", "../x", "ftp://a/b", "hf://", "hf://org", "https://", "https://example.org/",
     "http://example.org/a.gguf", "https://u:p@example.org/a.gguf", "file://host/a", "org/repo:", "a b",
     "org/re po", "-x/y", "org/repo@:a"],
)  # fmt: skip
def test_what_cannot_be_meant_says_what_to_write(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.hint


def test_the_nearest_names_are_offered() -> None:
    with pytest.raises(NotFoundError, match="vigogne-2-7b-chat"):
        parse("vigogne-2-7b-caht")
    with pytest.raises(NotFoundError, match="vigtui search"):
        parse("no-such-model")
