"""rank_pattern and alpha_pattern of PEFT: which module has which value.

The keys are regular expressions of a stranger, and one of thirty characters can keep a process busy for years. Plain
names are matched here, everything else in a process with little time and memory.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import FormatError
from ...core.i18n import _

SECONDS = 5
_FEW = 2_000_000  # comparisons of names: a second
_MODULE = "vigtui.registry.merge.pattern_child"
_PLAIN = re.compile(r"\^?(?:\w|\.|\\\.|-)+\$?")


def values(patterns: Any, modules: Sequence[str], default: Any, source: Path) -> dict[str, Any]:
    """Give each module's value: that of the first key that matches its name or the end of it, else `default`.

    As `get_pattern_key` of peft/utils/other.py. Raises FormatError for what is no table of regular expressions, and for
    expressions that take longer than SECONDS.
    """
    if not patterns:
        return dict.fromkeys(modules, default)
    if not isinstance(patterns, Mapping) or len(patterns) > len(modules) + 1000:
        raise _damaged(source)
    keys = list(patterns)
    plain = len(keys) * len(modules) < _FEW and all(len(key) < 1000 and _PLAIN.fullmatch(key) for key in keys)
    found = first(keys, modules) if plain else _apart(keys, modules, source)
    return {module: default if at is None else patterns[keys[at]] for module, at in zip(modules, found, strict=True)}


def first(keys: Sequence[str], modules: Sequence[str]) -> list[int | None]:
    """Give for each module the place of the first key that matches. Raises re.error."""
    compiled = [re.compile(rf"(.*\.)?({key})$") for key in keys]
    return [next((at for at, key in enumerate(compiled) if key.match(module)), None) for module in modules]


def _apart(keys: Sequence[str], modules: Sequence[str], source: Path) -> list[int | None]:
    request = json.dumps([keys, modules]).encode()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", _MODULE], input=request, capture_output=True, timeout=SECONDS, check=True
        )
        found = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        raise _damaged(source) from error
    return found


def _damaged(source: Path) -> FormatError:
    return FormatError(
        _("{path} has a rank_pattern or alpha_pattern that cannot be used.").format(path=source),
        _("Write whole module names there, such as self_attn.k_proj."),
    )
