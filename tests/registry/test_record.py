"""Records: what is written is what is read, and what is damaged is named."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vigtui.core.errors import FormatError, UsageError
from vigtui.registry import record
from vigtui.registry.record import File, Record

FULL = Record(
    name="vigogne-2-7b-chat",
    kind="gguf",
    tag="Q4_K_M",
    files=(File(Path("/models/a.gguf"), 12, "0" * 64), File(Path("/models/b é.gguf"), 3)),
    source="TheBloke/Vigogne-2-7B-Chat-GGUF @ 0123abc",
    format="vigogne-chat-v2",
    context=4096,
    licence="llama2",
    parents=("vigogne-2-7b-chat:F16",),
    made_with={"type": "Q4_K_M", "threads": 2},
    generation={"temperature": 0.1, "stop": ("</s>", "<|user|>"), "seed": 3},
    architecture="llama",
    parameters=6_738_415_616,
    quantization="Q4_K_M",
    added="2026-11-21T01:00:00+00:00",
    notices=("Le modèle parle français.",),
)


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    record.write(tmp_path / "a.json", FULL)
    assert record.read(tmp_path / "a.json") == FULL
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_path_of_each_kind() -> None:
    folder = (File(Path("/m/hf/config.json"), 1), File(Path("/m/hf/model.safetensors"), 2))
    assert FULL.path == Path("/models/a.gguf")
    assert Record("a", "safetensors", files=folder).path == Path("/m/hf")
    assert Record("a", "adapter", files=folder[:1]).path == Path("/m/hf/config.json")
    assert Record("a", "safetensors", files=folder).size == 3
    assert Record("a", "gguf").ref == "a"


@pytest.mark.parametrize("name", ["", "A", "a/b", "../a", ".a", "-a", "a b", "é", "a\n", "a" * 129, "a:b", "a@b"])
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        Record(name, "gguf")


@pytest.mark.parametrize("tag", ["/", "a/b", ".", "..", "é", "Q4\n", "a:b", "@"])
def test_unsafe_tags_are_refused(tag: str) -> None:
    with pytest.raises(UsageError):
        Record("a", "gguf", tag)


WRONG = [
    ("version", 2),
    ("version", None),
    ("name", "A/B"),
    ("name", 3),
    ("kind", "pickle"),
    ("kind", []),
    ("tag", None),
    ("files", {}),
    ("files", [{"path": "a", "size": 1}]),
    ("files", [{"path": "a", "size": -1, "sha256": None}]),
    ("files", [{"path": "a", "size": True, "sha256": None}]),
    ("files", [{"path": "a", "size": 1, "sha256": "abc"}]),
    ("context", "4096"),
    ("context", 1.5),
    ("parents", "base"),
    ("made_with", []),
    ("generation", {"heat": 1}),
    ("generation", {"temperature": -1.0}),
    ("generation", {"temperature": "hot"}),
    ("notices", [1]),
    ("surprise", 1),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_field_is_refused(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(json.loads(record.dump(FULL)) | {field: value}))
    with pytest.raises(FormatError) as caught:
        record.read(path)
    assert str(path) in caught.value.message and "\n" not in caught.value.message


def test_a_field_that_is_missing(tmp_path: Path) -> None:
    values = json.loads(record.dump(FULL))
    (tmp_path / "a.json").write_text(json.dumps({"version": 1, "name": "a", "kind": "gguf"}))
    assert record.read(tmp_path / "a.json") == Record("a", "gguf")
    for field in ("version", "name", "kind"):
        (tmp_path / "a.json").write_text(json.dumps({k: v for k, v in values.items() if k != field}))
        with pytest.raises(FormatError):
            record.read(tmp_path / "a.json")


@given(cut=st.integers(0, 900), junk=st.binary(max_size=12))
def test_any_damage_is_a_format_error_or_a_record(tmp_path_factory, cut: int, junk: bytes) -> None:
    path = tmp_path_factory.mktemp("record") / "a.json"
    data = record.dump(FULL).encode()
    path.write_bytes(data[:cut] + junk + data[cut + len(junk) :])
    try:
        assert isinstance(record.read(path), Record)
    except FormatError as error:
        assert str(path) in error.message


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "[]", "3", '"a"', '{"version": 1}', "", "\ufeff{}"])
def test_other_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(FormatError):
        record.read(tmp_path / "a.json")
