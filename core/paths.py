"""Where vigtui keeps its files: all under `VIGTUI_HOME` when that is set, but the cache that every tool shares."""

import os
from pathlib import Path


def _base(kind: str) -> Path:
    home = os.environ.get("VIGTUI_HOME")
    if home:
        return Path(home).expanduser() / kind
    import platformdirs  # 10 ms: only for those who have not set VIGTUI_HOME

    return Path(getattr(platformdirs, f"user_{kind}_dir")("vigtui", appauthor=False))


def config() -> Path:
    """Settings that a person may edit: config.toml, personas/."""
    return _base("config")


def data() -> Path:
    """What must not be lost: the conversations."""
    return _base("data")


def cache() -> Path:
    """What can be made again: converted adapters, saved KV states."""
    return _base("cache")


def models() -> Path:
    """Records of models and what vigtui made itself."""
    home = os.environ.get("VIGTUI_HOME")
    return (Path(home).expanduser() if home else _base("data")) / "models"


def hub() -> Path:
    """What huggingface_hub and its relatives keep, which every tool shares (HF_HOME)."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expandvars(os.path.expanduser(os.environ.get("HF_HOME") or f"{base}/huggingface")))


def logs() -> Path:
    """Native output of the engines, one file a process."""
    return cache() / "logs"
