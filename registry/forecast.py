"""What the builds of a repository need on this machine, known before their bytes are here."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import VigtuiError
from . import header, hub, memory, transfer
from . import plan as planning
from .forms import Option
from .hub import RemoteFile
from .plan import Machine, Plan, Shape

_HEAD = 1 << 20  # bytes of a GGUF file that hold its numbers, and its vocabulary up to some 60,000 words


def shape(repository: str, commit: str, kind: str, files: Sequence[RemoteFile]) -> Shape | None:
    """Give the shape of the model from the head of its GGUF file or its config.json, None when it cannot be had."""
    name = files[0].name if kind == "gguf" else "config.json"
    if name not in [file.name for file in files]:
        return None
    try:
        data = hub.small(repository, commit, name, _HEAD)
        if kind == "gguf":
            return planning.from_metadata(header.beginning(data))
        config = json.loads(data)
    except (VigtuiError, ValueError, RecursionError):
        return None
    return planning.from_config(config) if isinstance(config, dict) else None


def plans(
    repository: str, commit: str, options: Sequence[Option], shape: Shape | None, context: int | None = None
) -> list[Plan]:
    """Give the plan of each option, one of them recommended."""
    names = [option.tag or option.files[-1].name for option in options]
    sizes = [(option.size, missing(repository, commit, option.files)) for option in options]
    choices = [(name, *both) for name, both in zip(names, sizes, strict=True)]
    return planning.table(choices, shape, machine(hub.cache()), context)


def machine(folder: Path) -> Machine:
    """Give what is free in memory and on the disk of `folder`."""
    return Machine(memory.disk(folder), memory.available(), memory.gpu())


def missing(repository: str, commit: str, files: Sequence[RemoteFile]) -> int:
    """Give the bytes of these files that are not in the hub's cache, less the parts of earlier pulls."""
    home = hub.folder(repository)
    return sum(
        file.size - min(file.size, present(home / "blobs" / (file.sha256 or "-"), file.size))
        for file in files
        if not (home / "snapshots" / commit / file.name).exists()
    )


def present(whole: Path, size: int) -> int:
    """Give the bytes that are there of the file `whole` of `size` bytes, or of its part."""
    part = whole.with_name(whole.name + transfer.SUFFIX)
    return size if whole.exists() else part.stat().st_size if part.exists() else 0
