"""Pulling: the right files, every byte verified, one record at the end."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from vigtui.core import paths
from vigtui.core.errors import CapacityError, FormatError, NetworkError, NotFoundError, UsageError, VigtuiError
from vigtui.registry import hashes, pull
from vigtui.registry import hub as client
from vigtui.registry.order import prepare
from vigtui.registry.store import Registry
from vigtui.registry.transfer import Paused

from ..hub import Hub
from ..tiny import write_gguf
from . import build

MODEL = build.gguf()
SHA = hashlib.sha256(MODEL).hexdigest()


def get(reference: str, name: str | None = None):
    return pull.fetch(prepare(reference, name))


def test_one_quantization_is_fetched_and_published(hub: Hub) -> None:
    builds = {f"model.{tag}.gguf": build.gguf(4000, seed) for seed, tag in enumerate(("Q2_K", "Q5_K_M", "Q8_0"))}
    others = {"model.Q4_K_M.gguf": MODEL, "mmproj-f16.gguf": MODEL, "README.md": b"x"}
    commit = hub.add("org/Model-GGUF", {**builds, **others}, card={"license": "mit"})
    order = prepare("org/Model-GGUF")
    before = len(list(hub.asked("GET", "/cdn/")))
    record = pull.fetch(order)
    (fetched,) = list(hub.asked("GET", "/cdn/"))[before:]
    assert (record.ref, record.kind, record.licence) == ("model-gguf:Q4_K_M", "gguf", "mit")
    assert (record.source, record.origin) == (f"org/Model-GGUF@{commit}", "pulled")
    assert get("org/Model-GGUF").origin == "pulled"
    assert [(file.size, file.sha256) for file in record.files] == [(len(MODEL), SHA)]
    assert record.path.read_bytes() == MODEL
    assert (record.architecture, record.context) == ("llama", 512)
    assert Registry().find("model-gguf") == record
    assert {option.tag for option in order.options} == {"Q2_K", "Q4_K_M", "Q5_K_M", "Q8_0"}
    assert fetched.path.endswith("model.Q4_K_M.gguf") and fetched.range == f"bytes=0-{len(MODEL) - 1}"


def test_the_hub_s_own_client_finds_what_was_pulled(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    record = get("org/m")
    script = "from huggingface_hub import hf_hub_download as get; print(get('org/m', 'm.Q4_K_M.gguf'))"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=offline)
    assert Path(out.stdout.strip()) == record.path


def test_what_the_client_fetched_is_not_fetched_again(hub: Hub) -> None:
    from huggingface_hub import hf_hub_download

    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    path = hf_hub_download("org/m", "m.Q4_K_M.gguf")
    before = hub.bytes_of("/cdn/")
    assert prepare("org/m").missing == 0
    record = get("org/m")
    assert (record.path, record.origin) == (Path(path), "adopted")
    assert hub.bytes_of("/cdn/") == before


@pytest.mark.parametrize(
    ("reference", "tag"),
    [("org/m:q5_k_m", "Q5_K_M"), ("org/m:m.Q2_K.gguf", "Q2_K"), ("hf://org/m@main:m.Q2_K.gguf", "Q2_K")],
)
def test_a_tag_or_file_chooses_another(hub: Hub, reference: str, tag: str) -> None:
    hub.add("org/m", {f"m.{tag}.gguf": build.gguf(4000, seed) for seed, tag in enumerate(("Q2_K", "Q4_K_M", "Q5_K_M"))})
    assert prepare(reference).record.tag == tag


def test_what_does_not_fit_in_memory_gives_way_to_the_nearest(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"Q2_K": 4000, "Q3_K_M": 8000, "Q4_K_M": 40_000, "Q5_K_M": 60_000}
    hub.add("org/m", {f"m.{tag}.gguf": build.gguf(size) for tag, size in sizes.items()})
    monkeypatch.setattr("vigtui.registry.memory.available", lambda: 20_000)
    assert prepare("org/m").record.tag == "Q3_K_M"


def test_the_context_counts_when_a_build_is_chosen(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = write_gguf(tmp_path / "m.gguf").read_bytes()
    large = small + bytes(2 << 20)
    hub.add("org/m", {"m.Q2_K.gguf": small, "m.Q4_K_M.gguf": large})
    order = prepare("org/m")
    assert (order.record.tag, order.shape and order.shape.context) == ("Q4_K_M", 2048)
    needed = {plan.label: plan.memory for plan in order.plans()}
    assert needed["Q2_K"] > len(large)
    monkeypatch.setattr("vigtui.registry.memory.available", lambda: needed["Q2_K"] + (1 << 20))
    assert prepare("org/m").record.tag == "Q2_K"
    monkeypatch.setattr("vigtui.registry.memory.available", lambda: len(small) - 1)
    with pytest.raises(CapacityError, match="MB"):
        prepare("org/m")
    assert prepare("org/m", force=True).record.tag == "Q4_K_M"


def test_a_fresh_pull_is_not_read_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    record = get("org/m")
    monkeypatch.setattr(hashes, "_digest", lambda *_: pytest.fail("read again"))
    assert hashes.fingerprint(record) == SHA


def test_a_split_model_is_followed(hub: Hub) -> None:
    parts = {f"big/m.Q4_K_M-0000{n}-of-00003.gguf": build.gguf(4000, 1, n - 1, 3) for n in (1, 2, 3)}
    hub.add("org/m", {**parts, "m.Q8_0-00001-of-00002.gguf": MODEL})
    record = get("org/m")
    assert [file.path.name for file in record.files] == [Path(name).name for name in parts]
    assert record.path.name.endswith("-00001-of-00003.gguf")


def test_safetensors_are_preferred_and_nothing_comes_twice(hub: Hub) -> None:
    index = b'{"weight_map": {}}'
    hub.add("org/m", build.transformers(
        pytorch_model__bin=b"x" * 5000, consolidated__safetensors=b"x", model__onnx=b"x", tf_model__h5=b"x",
        tokenizer__model=b"\x0a\x01x", pytorch_model__bin__index__json=index,
    ))  # fmt: skip
    record = get("org/m")
    names = [file.path.name for file in record.files]
    assert names == ["config.json", "tokenizer.model", "tokenizer_config.json", "model.safetensors"]
    assert (record.kind, record.tag, record.context) == ("safetensors", "", 2048)
    assert all(file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest() for file in record.files)


def test_a_catalogued_model_brings_its_format_and_values(hub: Hub) -> None:
    files = build.transformers()
    del files["model.safetensors"]
    shards = {f"pytorch_model-0000{n}-of-00002.bin": build.torch(f"{n}.weight") for n in (1, 2)}
    hub.add("bofenghuang/vigogne-2-7b-chat", {**files, **shards})
    hub.add("bofenghuang/vigogne-2-7b-chat", {**files, **shards, "old.json": b"{}"}, revision="v1.0")
    new, old = get("bofenghuang/vigogne-2-7b-chat"), get("vigogne-2-7b-chat@v1.0")
    assert (new.ref, new.format, new.generation["repetition_penalty"]) == ("vigogne-2-7b-chat", "vigogne-chat-v2", 1.1)
    assert (old.ref, old.format) == ("vigogne-2-7b-chat:v1.0", "vigogne-chat-v1")
    assert any("TheBloke/Vigogne-2-7B-Chat-GGUF" in notice for notice in new.notices)
    assert not any("GGUF build" in notice for notice in old.notices)
    assert {one.ref for one in Registry().all()} >= {"vigogne-2-7b-chat", "vigogne-2-7b-chat:v1.0"}


def test_an_adapter_offers_its_base(hub: Hub) -> None:
    name = "Chinese-Vicuna/Chinese-Vicuna-7b-legal-lora"
    hub.add(name, build.adapter("/model/yahma_llama_7b"))
    hub.add("org/lora", build.adapter("org/base"))
    order = prepare(name)
    assert order.base == "yahma/llama-7b-hf"
    assert prepare("org/lora").base == "org/base"
    record = pull.fetch(order)
    assert (record.kind, record.format, record.parents) == ("adapter", "cv-chat", ("llama-7b-hf",))


def test_adapter_days_have_their_own_format(hub: Hub) -> None:
    hub.add("bofenghuang/vigogne-7b-instruct", build.adapter("decapoda-research/llama-7b-hf"), revision="old")
    hub.add("bofenghuang/vigogne-7b-instruct", build.transformers())
    assert prepare("bofenghuang/vigogne-7b-instruct@old").record.format == "vigogne-instruct-v2"
    assert prepare("bofenghuang/vigogne-7b-instruct").record.format == "vigogne-instruct-v3"


def test_a_training_checkpoint_is_an_adapter(hub: Hub) -> None:
    hub.add(
        "org/checkpoint", {"pytorch_model.bin": b"PK\x03\x04" + b"x" * 900, "optimizer.pt": b"x", "scheduler.pt": b"x"}
    )
    order = prepare("org/checkpoint")
    assert (order.record.kind, [file.name for file in order.files]) == ("adapter", ["pytorch_model.bin"])


def test_gptq_branches_are_offered_and_chosen(hub: Hub) -> None:
    files = build.transformers()
    weights = {"quantize_config.json": json.dumps({"bits": 4, "group_size": 128, "desc_act": False}).encode()}
    hub.add("org/m-GPTQ", {**files, **weights})
    for branch in ("gptq-4bit-32g-actorder_True", "gptq-8bit--1g-actorder_True", "other"):
        hub.add("org/m-GPTQ", {**files, **weights, "x.json": branch.encode()}, revision=branch)
    order = prepare("org/m-GPTQ")
    assert (order.record.kind, order.record.tag) == ("gptq", "4bit-128g")
    assert set(order.branches) == {"4bit-32g-actorder", "8bit-nog-actorder"}
    assert prepare("org/m-GPTQ:4bit-32g-actorder").record.made_with == {"revision": "gptq-4bit-32g-actorder_True"}


def test_of_several_gptq_files_the_most_readable_is_taken(hub: Hub) -> None:
    one = build.safetensors()
    names = ("m-4bit-128g.latest.act-order.safetensors", "m-4bit-128g.compat.no-act-order.safetensors")
    hub.add("TheBloke/x-GPTQ", {"config.json": b"{}", **dict.fromkeys(names, one)})
    assert [file.name for file in prepare("TheBloke/x-GPTQ").files][-1] == names[1]


def test_a_new_commit_replaces_the_record(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    old = get("org/m")
    hub.add("org/m", {"m.Q4_K_M.gguf": build.gguf(8000, 3)})
    new = get("org/m")
    assert old.source != new.source
    assert [one.source for one in Registry().all() if one.ref == new.ref] == [new.source]
    assert old.path.exists()


def test_a_name_that_another_model_has_is_refused_before_the_bytes(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    hub.add("other/m", {"m.Q4_K_M.gguf": build.gguf(4000, 9)})
    get("org/m")
    with pytest.raises(UsageError, match="--name"):
        prepare("other/m")
    assert get("other/m", "mine").ref == "mine:Q4_K_M"


def test_a_bare_address(hub: Hub, home: Path) -> None:
    commit = hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    url = f"{hub.cdn}/cdn/org--m/{commit}/m.Q4_K_M.gguf"
    record = get(url)
    assert (record.ref, record.source) == ("m:Q4_K_M", url)
    assert record.path.is_relative_to(paths.models())
    assert record.path.read_bytes() == MODEL


def test_a_file_on_this_disk(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(MODEL)
    assert get(f"file://{path}", "mine:own").path == path
    assert Registry().find("mine:own").path == path
    assert not hub.requests


def test_a_renamed_repository_says_so(hub: Hub) -> None:
    hub.add("org/new", {"m.Q4_K_M.gguf": MODEL})
    hub.renames["org/old"] = "org/new"
    order = prepare("org/old")
    assert order.repository == "org/new"
    assert "org/new" in order.notices[0]


def test_a_token_opens_a_gated_model_and_never_reaches_the_cdn(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/g", {"m.Q4_K_M.gguf": MODEL}, gated="manual")
    hub.user("hf_yes", {"org/g": "accepted"})
    monkeypatch.setenv("HF_TOKEN", "hf_yes")
    assert get("org/g").path.read_bytes() == MODEL
    assert {request.token for request in hub.requests if request.port == "cdn"} == {False}
    assert not any("hf_yes" in file.read_text() for file in paths.models().rglob("*.json"))


def test_the_three_refusals_differ(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/g", {"m.Q4_K_M.gguf": MODEL}, gated="manual")
    for token, standing in (("hf_new", {}), ("hf_wait", {"org/g": "pending"}), ("hf_no", {"org/g": "rejected"})):
        hub.user(token, standing)
    said = {}
    for token in ("", "hf_new", "hf_wait", "hf_no", "hf_forged"):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(NetworkError) as caught:
            prepare("org/g")
        said[token] = str(caught.value)
    assert len(set(said.values())) == 5
    assert "logged in" in said[""] and "has not accepted" in said["hf_new"] and "refused your request" in said["hf_no"]
    assert all(token not in text for token, text in said.items() if token)


@pytest.mark.parametrize(
    ("reference", "error", "word"),
    [
        ("bofenghuang/vigogne-2-7b-caht", NotFoundError, "bofenghuang/vigogne-2-7b-chat"),
        ("org/m@none", NotFoundError, "revision none"),
        ("org/m:none.gguf", NotFoundError, "m.Q4_K_M.gguf"),
        ("org/m:Q8_0", NotFoundError, "Q4_K_M"),
        ("org/empty", FormatError, "no weights"),
        ("org/onnx", FormatError, "ONNX"),
        ("org/several", UsageError, "org/several:a.gguf"),
        ("org/half", FormatError, "no weights"),
        ("TheBloke/Vigogne-2-7B-Chat-GGML", FormatError, "TheBloke/Vigogne-2-7B-Chat-GGUF"),
        ("decapoda-research/llama-7b-hf", NotFoundError, "yahma/llama-7b-hf"),
        ("a--b/..", VigtuiError, "a--b"),
    ],
)
def test_bad_input_names_the_next_step(hub: Hub, reference: str, error: type[VigtuiError], word: str) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    hub.add("org/empty", {"README.md": b"x"})
    hub.add("org/onnx", {"model.onnx": b"x", "config.json": b"{}"})
    hub.add("org/several", {"a.gguf": MODEL, "b.gguf": MODEL})
    hub.add("org/half", {"m-00001-of-00002.gguf": MODEL})
    hub.add("TheBloke/Vigogne-2-7B-Chat-GGML", {"vigogne-2-7b-chat.ggmlv3.q4_0.bin": b"tjgg" + bytes(40)})
    with pytest.raises(error) as caught:
        prepare(reference)
    assert word in str(caught.value)
    assert caught.value.hint


def test_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(NetworkError, match="cannot be reached"):
        prepare("org/m")


def test_the_offline_mode_asks_nobody(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NetworkError, match="offline"):
        prepare("org/m")
    assert not hub.requests


def test_a_disk_without_room_is_seen_before_the_bytes(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL}, claimed={"m.Q4_K_M.gguf": 10**17})
    with pytest.raises(CapacityError, match="MB"):
        prepare("org/m")


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html></html>", b"version https://git-lfs.github.com/spec/v1\n", b"GGUF"]
)
def test_what_is_no_model_is_never_listed(hub: Hub, content: bytes) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": content})
    with pytest.raises(FormatError):
        get("org/m")
    assert not [one for one in Registry().all() if one.source.startswith("org/m")]


def test_an_endpoint_that_is_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/elsewhere")
    with pytest.raises(VigtuiError) as caught:
        prepare("org/m")
    assert caught.value.hint


def test_steps_tell_file_and_total(hub: Hub) -> None:
    hub.add("org/m", build.transformers())
    steps: list[pull.Step] = []
    order = prepare("org/m")
    pull.fetch(order, steps.append)
    assert steps[-1].total_done == steps[-1].total == order.size
    assert [step.file for step in steps if step.stage == "done"] == [file.name for file in order.files]
    assert all(0 <= step.done <= step.size and step.total_done <= step.total for step in steps)


def test_searching(hub: Hub) -> None:
    hub.add("org/vigogne-x", {"a": b""}, downloads=7, card={"license": "mit"}, gated="auto")
    assert client.search("vigogne") == [client.Found("org/vigogne-x", 7, "mit", True)]


def test_stopping_pauses_and_the_same_reference_goes_on(hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    seen = []
    order = prepare("org/m")
    with pytest.raises(Paused):
        pull.fetch(order, seen.append, stop=lambda: bool(seen))
    part = next(client.cache().glob("**/*.vigtui")).stat().st_size
    assert 0 < part < len(MODEL)
    assert prepare("org/m").missing == len(MODEL) - part
    assert get("org/m").path.read_bytes() == MODEL
    [*_earlier, last] = hub.asked("GET", "/cdn/")
    assert last.range == f"bytes={part}-{len(MODEL) - 1}"
    assert replace(order.record, files=()).ref == "m:Q4_K_M"
