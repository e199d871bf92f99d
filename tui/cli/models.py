"""`vigtui add` and `default`: a model made known, and the one that answers unasked."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import UsageError
from ...core.i18n import _
from .option import model_names
from .output import Meter, print_json
from .table import Command

if TYPE_CHECKING:
    from ...registry.record import Record


@click.command(
    "add",
    cls=Command,
    help=_("Register the model or adapter at PATH where it lies, or a model of the server at URL; nothing is copied."),
)
@click.argument("path", metavar="PATH|URL")
@click.option("--name", metavar="NAME[:TAG]", help=_("Call it so."))
@click.option("--model", metavar="NAME", help=_("The model's name on the server."))
@click.option(
    "--key-env", metavar="VARIABLE", help=_("The variable that holds the server's key; only its name is kept.")
)
@click.option("--json", "machine", is_flag=True, help=_("Print its record as JSON."))
def add(path: str, name: str | None, model: str | None, key_env: str | None, machine: bool) -> None:
    record = _remote(path, name, model, key_env) if "://" in path else _local(path, name, model or key_env)
    if machine:
        return print_json(facts(record))
    click.echo(_("{name} is registered; `vigtui run {name}` starts it.").format(name=record.ref))


def _local(path: str, name: str | None, remote: str | None) -> "Record":
    from ...registry.store import Registry

    if remote:
        raise UsageError(
            _("--model and --key-env go with the address of a server."),
            _("Write it as http://host:8000/v1, for instance."),
        )
    with Meter() as meter:
        return Registry().add(Path(path), name, meter)


def _remote(url: str, name: str | None, model: str | None, key_env: str | None) -> "Record":
    from ...registry import remote

    if key_env and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key_env):
        raise UsageError(_("--key-env wants the name of a variable, not a key."), _("Write --key-env MY_KEY."))
    return remote.add(url, model, name, key_env or "")


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
