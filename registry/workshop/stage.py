"""One step of the workshop: what it reads, what it writes, and the key by which its output is found again."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core import __version__, paths
from ...core.i18n import _


@dataclass(frozen=True, slots=True)
class Input:
    """What a stage reads and no stage makes: where it lies, what tells its content from any other, and its bytes."""

    path: Path
    identity: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """A step in a process of its own: `work` names the function, `arguments` are JSON values for it.

    `key` depends on everything that decides the output, and on nothing else; `needs` are the stages whose outputs it
    reads. `path` is where the output lies, None where the result is all. `size` is its length and `memory`
    what the work takes, both estimated, in bytes.
    """

    work: str
    key: str
    path: Path | None
    arguments: Mapping[str, Any]
    needs: tuple["Stage", ...] = ()
    size: int = 0
    memory: int = 0
    label: str = ""

    @property
    def identity(self) -> str:
        """What tells its output from any other."""
        return self.key

    @property
    def title(self) -> str:
        """The step in words."""
        return " ".join(filter(None, (titles()[self.work], self.label)))


Material = Input | Stage


@dataclass(slots=True)
class _Reading:
    """Turns arguments into JSON values for the work, and into the part of the key that stands for them."""

    needs: list[Stage] = field(default_factory=list)

    def plain(self, value: Any) -> Any:
        if isinstance(value, Stage) and value not in self.needs:
            self.needs.append(value)
        if isinstance(value, Input | Stage):
            return self.plain(value.path)
        if isinstance(value, list | tuple):
            return [self.plain(one) for one in value]
        return str(value.absolute()) if isinstance(value, Path) else value

    def meant(self, value: Any) -> Any:
        if isinstance(value, Input | Stage):
            return {"content": value.identity}
        if isinstance(value, list | tuple):
            return [self.meant(one) for one in value]
        return str(value.absolute()) if isinstance(value, Path) else value


def make(
    work: str,
    output: str = "",
    *,
    size: int = 0,
    memory: int = 0,
    label: str = "",
    beside: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Stage:
    """Give the stage that writes the file or folder `output`; arguments in `beside` do not change what comes out."""
    reading = _Reading()
    values = {name: reading.plain(value) for name, value in {**arguments, **(beside or {})}.items()}
    meant = [__version__, work, {name: reading.meant(value) for name, value in arguments.items()}]
    key = hashlib.sha256(json.dumps(meant, sort_keys=True).encode()).hexdigest()[:24]
    path = folder(key) / output if output else None
    return Stage(work, key, path, values, tuple(reading.needs), size, memory, label)


def ancestry(goals: Iterable[Stage], done: Callable[[Stage], bool] = lambda _stage: False) -> list[Stage]:
    """Give the stages that lead to `goals`, each after those that it needs; what is `done` needs nothing any more."""
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.key not in found and not done(stage):
            for need in stage.needs:
                visit(need)
            found[stage.key] = stage

    for goal in goals:
        visit(goal)
    return list(found.values())


def home() -> Path:
    """Give where unfinished work lies: a folder a stage."""
    return paths.cache().absolute() / "workshop"


def folder(key: str) -> Path:
    """Give the folder of the stage with this key."""
    return home() / key


def titles() -> dict[str, str]:
    """Give work → its name for people, in the language in force."""
    return {
        "pull": _("pull"), "merge": _("merge"), "convert": _("convert"), "legacy": _("convert"),
        "adapter": _("convert the adapter"), "to_hf": _("convert"), "from_hf": _("convert"),
        "imatrix": _("importance matrix"), "quantize": _("quantize"), "gptq": _("quantize"),
        "measure": _("check"), "try": _("try"), "register": _("register"), "hash": _("hash"),
        "wait": _("waiting for another process that makes the same"),
    }  # fmt: skip
