"""GPTQ builds, told apart by bits, group size and act-order: one branch of the repository each."""

import json
import re
from dataclasses import replace
from typing import Any

from ..core.errors import FormatError
from ..core.i18n import _
from . import catalogue, hub
from .forms import Option
from .reference import Reference

_BRANCH = re.compile(r"gptq-(\d+)bit-(-?\d+)g(?:-actorder_(True|False))?", re.I)


def tag(held: hub.Repository, option: Option, revision: str) -> str:
    """Give a GPTQ build's tag, such as 4bit-128g or 4bit-32g-actorder, from its branch, its settings or its name."""
    match = _BRANCH.match(revision)
    return _bits(*match.groups()) if match else _settled(held, option)


def _settled(held: hub.Repository, option: Option) -> str:
    """Give the tag of a GPTQ build from its quantize_config.json, or from its file's name (facts of 2023)."""
    if any(file.name == "quantize_config.json" for file in option.files):
        config = settings(held, "quantize_config.json")
        if isinstance(config.get("bits"), int):
            return _bits(str(config["bits"]), str(config.get("group_size", -1)), str(config.get("desc_act", False)))
    named = re.search(r"(\d)[-_]?bit[-_](\d+)g", option.tag + held.name, re.I)
    return _bits(named[1], named[2], None) if named else "GPTQ"


def _bits(bits: str, group: str, order: str | None) -> str:
    actorder = "-actorder" if (order or "").lower() == "true" else ""
    return f"{bits}bit-{'nog' if group == '-1' else group + 'g'}{actorder}"


def chosen(wanted: Reference, entry: catalogue.Entry | None) -> tuple[Reference, dict[str, str]]:
    """Give the reference at the branch that its tag means, and the branches of a GPTQ repository by tag."""
    if wanted.file or not ((entry and entry.kind == "gptq") or "gptq" in wanted.repository.casefold()):
        return wanted, {}
    names = [(name, _BRANCH.fullmatch(name)) for name in hub.revisions(wanted.repository)]
    branches = {_bits(*match.groups()): name for name, match in names if match}
    chosen = next((name for tag, name in branches.items() if tag.casefold() == wanted.tag.casefold()), None)
    return (replace(wanted, revision=chosen, tag="") if chosen and wanted.tag else wanted), branches


def settings(held: hub.Repository, file: str) -> dict[str, Any]:
    """Give a small JSON file of the repository. Raises FormatError when it is none."""
    try:
        value = json.loads(hub.small(held.name, held.commit, file))
    except (ValueError, RecursionError) as error:
        raise FormatError(_("{file} of {name} is damaged.").format(file=file, name=held.name)) from error
    return value if isinstance(value, dict) else {}
