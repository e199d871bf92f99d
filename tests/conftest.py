"""Every test has a home of its own and the language of the code."""

import os
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side, and more threads than cores cost a hundredfold


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty VIGTUI_HOME and HF_HOME."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("VIGTUI_HOME", str(folder / "vigtui"))
    monkeypatch.setenv("HF_HOME", str(folder / "huggingface"))
    for name in ("HF_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_MODULES_CACHE"):  # gptqmodel's tokenizers set them
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "0")  # a flag --offline sets it in this process
    for name in ("VIGTUI_MODEL", "VIGTUI_DEBUG", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "HF_TOKEN", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "en_US.UTF-8")
    from vigtui.core import i18n

    i18n.use("en")
    return folder / "vigtui"
