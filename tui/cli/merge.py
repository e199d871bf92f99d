"""`vigtui merge`: a base model and LoRA adapters become one whole model."""

from pathlib import Path
from typing import Any

import click

from ...core.i18n import _
from .option import model_names
from .table import Command
from .workshop import calibration_option, common, perform, shared_options, sources, types_of, types_option


@click.command("merge", cls=Command, help=_("Merge LoRA adapters into BASE.") + " " + sources("BASE"))
@click.argument("base", metavar="BASE", shell_complete=model_names)
@click.option("--lora", multiple=True, required=True, metavar="REF[=SCALE]", help=_("Adapter; may be repeated."))
@click.option("--scale", type=float, default=1.0, help=_("Scale of every adapter that names none."))
@click.option("--alpha", type=float, help=_("lora_alpha of an adapter of 2023 that does not say it."))
@types_option(_("Quantize the merge as GGUF: Q4_K_M, F16 …; without it, a Hugging Face folder is made."))
@click.option("--imatrix", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=_("Importance matrix."))
@calibration_option
@shared_options
def merge(
    base: str,
    lora: tuple[str, ...],
    scale: float,
    alpha: float | None,
    types: tuple[str, ...],
    imatrix: Path | None,
    calibration: str | None,
    **shared: Any,
) -> int:
    from ...registry.workshop.order import Order, Quantizing

    order = Order(
        "merge",
        base,
        adapters=tuple(_scaled(ref, scale) for ref in lora),
        alpha=alpha,
        types=types_of(types),
        quantizing=Quantizing(imatrix=imatrix, calibration=calibration),
        **common(shared),
    )
    return perform(order, shared["dry_run"], shared["machine"])


def _scaled(ref: str, scale: float) -> tuple[str, float]:
    """Give name and scale of an adapter. Raises UsageError for a scale that is no number."""
    from ...registry.open import scaled

    name, own = scaled(ref)
    return (name, scale) if name == ref else (name, own)
