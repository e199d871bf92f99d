"""The fixture `hub`: a hub of its own for a test, and the real client pointed at it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .server import Hub


def use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point huggingface_hub at `url` and at this test's HF_HOME, here and in subprocesses.

    The client reads its environment when it is first imported, so what it has read is set as well.
    """
    monkeypatch.setenv("HF_ENDPOINT", url)
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    from huggingface_hub import constants, hf_api
    from huggingface_hub.utils import _detect_agent

    home = Path(os.environ["HF_HOME"])
    for name, value in {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "AGENT_HARNESSES_PATH": str(home / ".agent_harnesses.json"),
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(hf_api.api, "endpoint", url)
    monkeypatch.setattr(_detect_agent, "_registry", {"standardEnvVars": [], "harnesses": {}})


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, running."""
    with Hub() as running:
        use(running.url, monkeypatch)
        yield running
