"""The hub speaks the real client's language."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .server import Hub

WEIGHTS = bytes(range(256)) * 4000
FILES = {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS, "sub/tokenizer.model": b"\x0a\x01x"}


def test_the_client_reads_metadata(hub: Hub) -> None:
    commit = hub.add("org/model", FILES, gated="auto", card={"license": "llama2"})
    info = HfApi().model_info("org/model", files_metadata=True)
    files = {sibling.rfilename: sibling for sibling in info.siblings}
    assert (info.sha, info.gated, info.card_data.license) == (commit, "auto", "llama2")
    assert files["model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert files["model.safetensors"].size == len(WEIGHTS)
    assert files["config.json"].lfs is None


def test_the_client_downloads_and_lists_page_by_page(hub: Hub) -> None:
    commit = hub.add("org/model", FILES)
    old = hub.add("org/model", {"config.json": b"old"}, revision="v1.0")
    hub.page = 2
    entries = list(HfApi().list_repo_tree("org/model", recursive=True))
    folder = Path(snapshot_download("org/model"))
    assert [entry.path for entry in entries] == sorted(FILES)
    assert folder.name == commit
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert Path(hf_hub_download("org/model", "config.json", revision="v1.0")).read_bytes() == b"old"
    refs = HfApi().list_repo_refs("org/model").branches
    assert {ref.name: ref.target_commit for ref in refs} == {"main": commit, "v1.0": old}


def test_the_client_in_a_process_of_its_own(hub: Hub) -> None:
    hub.add("org/model", FILES)
    script = "from huggingface_hub import hf_hub_download as get; print(get('org/model', 'model.safetensors'))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    path = Path(out.stdout.strip())
    assert path.read_bytes() == WEIGHTS
    assert path.is_relative_to(os.environ["HF_HOME"])


def test_searching(hub: Hub) -> None:
    hub.add("org/vigogne-chat", FILES)
    hub.add("org/other", FILES)
    assert [model.id for model in HfApi().list_models(search="Vigogne", limit=5)] == ["org/vigogne-chat"]


@pytest.mark.parametrize(
    ("repository", "file", "revision", "error"),
    [
        ("org/none", "a", "main", RepositoryNotFoundError),
        ("org/model", "a", "none", RevisionNotFoundError),
        ("org/model", "none", "main", RemoteEntryNotFoundError),
        ("org/gated", "config.json", "main", GatedRepoError),
    ],
)
def test_refusals(hub: Hub, repository: str, file: str, revision: str, error: type[Exception]) -> None:
    hub.add("org/model", FILES)
    hub.add("org/gated", FILES, gated="manual")
    with pytest.raises(error):
        hf_hub_download(repository, file, revision=revision)


def test_a_renamed_repository_is_followed(hub: Hub) -> None:
    hub.add("org/new", FILES)
    hub.renames["org/old"] = "org/new"
    assert HfApi().model_info("org/old").id == "org/new"
    assert Path(hf_hub_download("org/old", "config.json")).read_bytes() == FILES["config.json"]


def test_the_token_never_reaches_the_cdn(hub: Hub) -> None:
    hub.add("org/gated", FILES, gated="manual")
    hub.user("hf_yes", {"org/gated": "accepted"})
    assert Path(hf_hub_download("org/gated", "model.safetensors", token="hf_yes")).read_bytes() == WEIGHTS
    assert {request.token for request in hub.requests if request.port == "cdn"} == {False}
    assert any(request.token for request in hub.requests if request.port == "hub")


@pytest.mark.parametrize(("token", "word"), [("hf_new", "authorized list"), ("hf_no", "rejected")])
def test_two_ways_to_be_refused(hub: Hub, token: str, word: str) -> None:
    hub.add("org/gated", FILES, gated="manual")
    hub.user("hf_new")
    hub.user("hf_no", {"org/gated": "rejected"})
    with pytest.raises(GatedRepoError) as caught:
        hf_hub_download("org/gated", "config.json", token=token)
    assert word in str(caught.value)


def get(url: str, **headers: str) -> httpx2.Response:
    return httpx2.get(url, headers=headers)


def cdn(hub: Hub, commit: str) -> str:
    return f"{hub.cdn}/cdn/org--model/{commit}/model.safetensors"


def test_ranges(hub: Hub) -> None:
    url = cdn(hub, hub.add("org/model", FILES))
    part = get(url, Range="bytes=10-19")
    assert (part.status_code, part.content) == (206, WEIGHTS[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(WEIGHTS)}"
    assert get(url, Range=f"bytes={len(WEIGHTS)}-").status_code == 416


def test_faults(hub: Hub) -> None:
    url = cdn(hub, hub.add("org/model", FILES))
    hub.fault("model.safetensors", status=503, times=1)
    hub.fault("model.safetensors", corrupt_at=5, times=1)
    hub.fault("model.safetensors", drop_after=1000, times=1)
    assert get(url).status_code == 503
    assert get(url).content == WEIGHTS[:5] + b"\xfa" + WEIGHTS[6:]
    with pytest.raises(httpx2.RemoteProtocolError):
        get(url)
    assert get(url).content == WEIGHTS


def test_too_many_requests_tell_when_to_come_back(hub: Hub) -> None:
    hub.add("org/model", FILES)
    hub.fault("/api/models/", status=429, retry_after=3)
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi().model_info("org/model")
    assert caught.value.response.headers["Retry-After"] == "3"
