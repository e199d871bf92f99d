"""The models that ship with vigtui, known by name with no set-up."""

from dataclasses import replace
from pathlib import Path

from .. import assets
from ..core.errors import VigtuiError
from .describe import describe
from .record import File, Record

EMBEDDED = "vigogneau"
_GREEDY = {"temperature": 0.0, "repetition_penalty": 1.0}


def records() -> list[Record]:
    """Give the embedded model and, in a clone, its Hugging Face folder and its adapter."""
    home = assets.path("vigogneau")
    embedded, folder, marin = home / "vigogneau.gguf", home / "hf", home / "marin"
    found = [_record(EMBEDDED, "gguf", embedded)]
    if (folder / "config.json").is_file():
        found.append(_record("vigogneau-hf", "safetensors", folder))
    if (marin / "adapter_config.json").is_file():
        adapter = _record("vigogneau-marin", "adapter", marin)
        ready = home / "marin.gguf"
        files = (*adapter.files, File(ready, ready.stat().st_size)) if ready.is_file() else adapter.files
        found.append(replace(adapter, files=files, parents=("vigogneau-hf",), format=None, generation={}))
    return found


def _record(name: str, kind: str, path: Path) -> Record:
    try:
        record = describe(path, name)
    except VigtuiError:  # the load says what is wrong with it
        record = Record(name, kind, files=(File(path, 0),))
    return replace(
        record,
        tag="",
        source="vigtui",
        format="vigogne-chat-v2",
        generation=_GREEDY,
        licence="apache-2.0",
        added="",
    )
