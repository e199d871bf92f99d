"""`vigtui doctor`: what this machine offers, and what is missing; with a model, what it is sent."""

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from ...core import __version__, i18n, paths
from ...core.errors import UsageError
from ...core.i18n import _
from .checkup import checkup, show
from .option import model_names
from .output import print_json, print_rows, size
from .table import Command

PACKAGES = (
    "llama-cpp-python",
    "gguf",
    "numpy",
    "textual",
    "huggingface-hub",
    "jinja2",
    "click",
    "safetensors",
    "sentencepiece",
    "tokenizers",
    "torch",
    "transformers",
    "gptqmodel",
)


@click.command(
    "doctor", cls=Command, help=_("Say what this machine offers and what is missing, or what a MODEL is sent and why.")
)
@click.argument("model", required=False, shell_complete=model_names)
@click.option("--ask", "question", metavar="TEXT", help=_("Ask the model this."))
@click.option("--format", "form", metavar="ID", help=_("Look at this prompt format instead of the model's."))
@click.option("--try-formats", is_flag=True, help=_("Rank the plausible formats by how cleanly the model answers."))
@click.option("--json", "machine", is_flag=True, help=_("Print JSON."))
def doctor(model: str | None, question: str | None, form: str | None, try_formats: bool, machine: bool) -> int:
    if model is None and (question or form or try_formats):
        raise UsageError(_("Name a model: `vigtui doctor MODEL`."))
    if model is not None:
        found = checkup(model, form, question or _("Who are you?"), try_formats)
        show(found, machine)
        return found.code
    _machine_report(machine)
    return 0


def _machine_report(machine: bool) -> None:
    found = examine()
    if machine:
        return print_json(found)
    for title, values in found.items():
        click.echo(_TITLES[title]())
        print_rows([(f"  {name}", _shown(title, name, value)) for name, value in values.items()])


_TITLES = {
    "versions": lambda: _("Versions"),
    "machine": lambda: _("Machine"),
    "backends": lambda: _("Backends"),
    "folders": lambda: _("Folders"),
}


def _shown(title: str, name: str, value: Any) -> str:
    if title == "versions":
        return value or _("not installed")
    if title == "backends":
        return value or _("ready")
    if name in ("memory", "memory_available", "disk_free", "unfinished_work") and value is not None:
        return size(value)
    return _("unknown") if value is None else str(value)


def examine() -> dict[str, dict[str, Any]]:
    """Give versions, machine (bytes), backends (None when usable, else why not) and folders."""
    return {
        "versions": {"vigtui": __version__, "python": platform.python_version(), **_packages()},
        "machine": _machine(),
        "backends": _backends(),
        "folders": _folders(),
    }


def _folders() -> dict[str, str]:
    from ...registry.workshop import stage

    places = {part.__name__: part() for part in (paths.config, paths.data, paths.cache, paths.models)}
    return {name: str(place) for name, place in (places | {"workshop": stage.home()}).items()}


def _packages() -> dict[str, str | None]:
    from importlib import metadata  # 15 ms, of which `--help` has no use

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {name: version(name) for name in PACKAGES}


def _machine() -> dict[str, Any]:
    from ...backends.threads import physical_cores
    from ...registry.memory import available
    from ...registry.workshop import journal

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "cores": physical_cores(),
        "memory": _memory(),
        "memory_available": available(),
        "disk_free": shutil.disk_usage(_existing(paths.models())).free,
        "unfinished_work": journal.unfinished(),
        "terminal": os.environ.get("TERM", ""),
        "encoding": getattr(sys.stdout, "encoding", ""),
        "language": i18n.language(),
    }


def _memory() -> int | None:
    """Give all memory in bytes, where the system says it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _backends() -> dict[str, str | None]:
    from ...backends import TABLE, backend_class

    return {name: backend_class(name).unavailable() for name in TABLE}
