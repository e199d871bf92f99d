"""`vigtui add` and `default`: a model made known, and the one that answers unasked."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...core.i18n import _
from .option import model_names
from .output import Meter, print_json
from .table import Command

if TYPE_CHECKING:
    from ...registry.record import Record


@click.command("add", cls=Command, help=_("Register the model or adapter at PATH where it lies; nothing is copied."))
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME[:TAG]", help=_("Call it so."))
@click.option("--json", "machine", is_flag=True, help=_("Print its record as JSON."))
def add(path: Path, name: str | None, machine: bool) -> None:
    from ...registry.store import Registry

    with Meter() as meter:
        record = Registry().add(path, name, meter)
    if machine:
        return print_json(facts(record))
    click.echo(_("{name} is registered; `vigtui run {name}` starts it.").format(name=record.ref))


@click.command("default", cls=Command, help=_("Print the model that answers without --model, or make MODEL it."))
@click.argument("model", required=False, shell_complete=model_names)
def default(model: str | None) -> None:
    from ...core import config
    from ...registry.open import backend_for, resolve

    record = resolve(model)
    if model is not None:
        backend_for(record)
        config.put("default_model", lasting(record))
    click.echo(record.ref)


def facts(record: "Record") -> dict[str, Any]:
    """Give the fields of a record as JSON values, with its whole name and its size in bytes."""
    from dataclasses import asdict

    values = asdict(record)
    return {"ref": record.ref, "size": record.size, **values}


def lasting(record: "Record") -> str:
    """Give what means this model tomorrow too: its name when it is registered, else its path."""
    from ...registry.store import Registry

    return record.ref if any(one.ref == record.ref for one in Registry().all()) else str(record.path.resolve())
