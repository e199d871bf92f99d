"""`vigtui serve`: the models of this machine for every program that speaks the OpenAI API."""

import os
import re
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import BackendError, UsageError
from ...core.i18n import _
from . import say
from .option import loading_options, model_names
from .table import Command

if TYPE_CHECKING:
    from ...backends.base import LoadOptions

_EPILOG = _(
    "With --engine vllm, what follows `--` goes to vLLM as it is: `-- --tensor-parallel-size 2`, "
    "`-- --distributed-executor-backend ray`."
)

_REST = "vigtui.serve.rest"


class Serve(Command):
    """Keeps what follows `--` apart from the models."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            place = args.index("--")
            ctx.meta[_REST] = args[place + 1 :]
            args = args[:place]
        return super().parse_args(ctx, args)


@click.command("serve", cls=Serve, help=_("Serve models (the default one) over an OpenAI-compatible API."),
               epilog=_EPILOG)  # fmt: skip
@click.argument("models", nargs=-1, metavar="[MODEL…] [-- …]", shell_complete=model_names)
@click.option(
    "--host", default="127.0.0.1", metavar="NAME", help=_("Name or address to listen on; others may then ask.")
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, metavar="N", help=_("Port; 0 is any free one."))
@click.option("--api-key", metavar="KEY", help=_("Clients must show this key."))
@click.option("--api-key-env", metavar="VARIABLE", help=_("The variable that holds that key."))
@click.option(
    "--keep-alive", default="5m", metavar="TIME", help=_("Free unused models after TIME: 30s, 5m, 1h; −1 never.")
)
@click.option("--queue", type=click.IntRange(min=0), default=64, metavar="N", help=_("So many requests may wait."))
@click.option("--format", "form", metavar="ID", help=_("Prompt format, instead of the model's own."))
@click.option("--lora", multiple=True, metavar="REF[=SCALE]", help=_("Apply this adapter; may be repeated."))
@click.option("--backend", metavar="NAME", help=_("Engine to use; `vigtui doctor` lists them."))
@loading_options
@click.option("--engine", type=click.Choice(["vigtui", "vllm"]), default="vigtui", help=_("Who serves."))
@click.option("--print", "dry", is_flag=True, help=_("Only print vLLM's command line."))
@click.pass_context
def serve(context: click.Context, models: tuple[str, ...], **values: Any) -> None:
    from ...backends.base import LoadOptions

    extra: list[str] = context.meta.get(_REST, [])
    loading = LoadOptions(
        values["window"], values["threads"], values["gpu_layers"], values["device"], values["dtype"],
        values["load_in"], values["remote_code"],
    )  # fmt: skip
    if values["offline"]:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if values["engine"] == "vllm":
        return _vllm(models, extra, loading, values)
    if extra or values["dry"]:
        raise UsageError(_("--print and what follows `--` are for --engine vllm."))
    _own(models, loading, values)


def _own(models: tuple[str, ...], loading: "LoadOptions", values: dict[str, Any]) -> None:
    from ...server import pool, run
    from ...server.app import Settings

    if missing := run.unavailable():
        raise BackendError(missing)
    served = pool.serve(models, values["lora"], values["backend"], values["form"])
    settings = Settings(
        host=values["host"], key=_key(values), most=values["queue"], keep_alive=seconds(values["keep_alive"]),
        force=values["force"],
    )  # fmt: skip
    listening = run.bind(settings.host, values["port"])
    host, port = listening.getsockname()[:2]
    if settings.key is None and not host.startswith("127.") and host != "::1":
        say(_("Everybody who reaches {host} may ask: --api-key-env keeps strangers out.").format(host=host))
    names = ", ".join(one.record.ref for one in served)
    shown = f"[{host}]" if ":" in host else host
    say(_("{names}: http://{host}:{port}/v1 (Ctrl-C ends it)").format(names=names, host=shown, port=port))
    run.run(served, loading, settings, listening)


def _vllm(models: tuple[str, ...], extra: list[str], loading: "LoadOptions", values: dict[str, Any]) -> None:
    import shlex

    from ...registry.open import resolve
    from ...server import vllm

    if len(models) > 1 or values["lora"] or values["backend"]:
        raise UsageError(
            _("vLLM serves one model, without --lora and --backend."), _("What it can do goes after `--`.")
        )
    record = resolve(models[0] if models else None)
    parts = vllm.command(record, values["form"], loading, values["host"], values["port"], extra)
    if values["dry"]:
        return click.echo(shlex.join(parts))
    vllm.start(parts, _key(values))


def _key(values: dict[str, Any]) -> str | None:
    name = values["api_key_env"]
    if name and values["api_key"]:
        raise UsageError(_("{one} and {other} exclude each other.").format(one="--api-key", other="--api-key-env"))
    if name and not os.environ.get(name):
        raise UsageError(_("The variable {name} is not set.").format(name=name), _("Set it: export {name}=…").format(
            name=name))  # fmt: skip
    return os.environ[name] if name else values["api_key"] or None


def seconds(text: str) -> float | None:
    """Give the seconds of 30, 30s, 5m or 1h; None of what is below zero. Raises UsageError."""
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not found:
        raise UsageError(_("{text} is no time.").format(text=text), _("Write 30s, 5m, 1h, or -1 for ever."))
    amount = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]
    return None if amount < 0 else amount
