"""`vigtui convert`: weights from one form to another."""

from pathlib import Path
from typing import Any

import click

from ...core.i18n import _
from ...registry.workshop.order import FORMS
from .option import model_names
from .table import Command
from .workshop import common, perform, shared_options, sources

_TYPES = ("f16", "bf16", "f32", "q8_0")
_COUNT = click.IntRange(min=1)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(
    "convert", cls=Command, help=_("Convert weights to another form, GGUF by default.") + " " + sources("SOURCE")
)
@click.argument("source", shell_complete=model_names)
@click.option("--to", type=click.Choice(FORMS), default="gguf", help=_("Form of the product."))
@click.option(
    "--type",
    "kind",
    type=click.Choice(_TYPES, case_sensitive=False),
    help=_("Type of the weights; unset, 16 bits as they are."),
)
@click.option("--base", metavar="MODEL", help=_("Adapter: the model that it was trained on, where it names none."))
@click.option("--alpha", type=float, help=_("Adapter: lora_alpha, where it does not say it."))
@click.option("--gqa", type=_COUNT, default=1, help=_("GGML: heads for each KV head (8 for Llama-2-70B)."))
@click.option("--eps", type=float, help=_("GGML: RMS epsilon (1e-5 for Llama-2)."))
@click.option("--context-length", "length", type=_COUNT, default=2048, help=_("GGML: context in tokens."))
@click.option("--metadata-dir", "metadata", type=_FOLDER, help=_("GGML: folder of the original tokenizer."))
@shared_options
def convert(
    source: str,
    to: str,
    kind: str | None,
    base: str | None,
    alpha: float | None,
    gqa: int,
    eps: float | None,
    length: int,
    metadata: Path | None,
    **shared: Any,
) -> int:
    from ...registry.workshop.order import Legacy, Order

    order = Order(
        "convert",
        source,
        alpha=alpha,
        base=base,
        to=to,
        types=(kind,) if kind else (),
        legacy=Legacy(gqa, eps, length, metadata),
        **common(shared),
    )
    return perform(order, shared["dry_run"], shared["machine"])
