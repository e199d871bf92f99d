"""`vigtui quantize`: fewer bits for each weight, by llama.cpp or GPTQ."""

from pathlib import Path
from typing import Any

import click

from ...core.errors import UsageError
from ...core.i18n import _
from .option import model_names
from .table import Command
from .workshop import calibration_option, common, perform, shared_options, sources, types_of, types_option

_GPTQ = ("bits", "group_size", "act_order", "sym", "damp", "samples", "device")
_GGUF = ("leave_output_tensor", "pure", "imatrix", "allow_requantize")


def _gptq_options(command: Any) -> Any:
    for decorate in reversed(
        (
            click.option("--gptq", is_flag=True, help=_("Make a GPTQ model instead of GGUF files.")),
            click.option("--bits", type=click.IntRange(2, 8), help=_("GPTQ: bits of a weight: 2, 3, 4 or 8.")),
            click.option("--group-size", type=int, help=_("GPTQ: weights that share a scale; −1 is a whole row.")),
            click.option("--act-order/--no-act-order", default=None, help=_("GPTQ: the weightiest columns first.")),
            click.option("--sym/--asym", default=None, help=_("GPTQ: symmetric, or with a zero point.")),
            click.option("--damp", type=float, help=_("GPTQ: share of the mean that is added to the diagonal.")),
            click.option("--samples", type=click.IntRange(min=1), help=_("GPTQ: pieces of text to calibrate with.")),
            click.option("--device", metavar="NAME", help=_("GPTQ: cpu, cuda, cuda:1 …")),
        )
    ):
        command = decorate(command)
    return command


@click.command(
    "quantize", cls=Command, help=_("Make smaller models of MODEL, one for each TYPE.") + " " + sources("MODEL")
)
@click.argument("model", shell_complete=model_names)
@types_option(_("llama.cpp's name, such as Q4_K_M or Q8_0; may be repeated."))
@click.option("--leave-output-tensor", is_flag=True, help=_("Do not quantize the output tensor."))
@click.option("--pure", is_flag=True, help=_("The same type for every tensor."))
@click.option("--imatrix", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=_("Importance matrix."))
@calibration_option
@click.option("--allow-requantize", is_flag=True, help=_("Quantize what is quantized already, at a loss."))
@_gptq_options
@shared_options
def quantize(model: str, types: tuple[str, ...], gptq: bool, calibration: str | None, **values: Any) -> int:
    from ...registry.workshop.order import Order, Packing, Quantizing

    _refuse(gptq, types, values)
    if gptq:
        given = {name: values[name] for name in _GPTQ if values[name] is not None}
        given |= {"calibration": calibration} if calibration else {}
        order = Order("gptq", model, packing=Packing(**given), **common(values))
    else:
        given = {name: values[name] for name in _GGUF}
        options = Quantizing(calibration=calibration, **given)
        order = Order("quantize", model, types=types_of(types), quantizing=options, **common(values))
    return perform(order, values["dry_run"], values["machine"])


def _refuse(gptq: bool, types: tuple[str, ...], values: dict[str, Any]) -> None:
    """Refuse flags of the one method together with the other."""
    foreign = _GGUF if gptq else _GPTQ
    flags = ["-q"] if gptq and types else []
    flags += ["--" + name.replace("_", "-") for name in foreign if values[name] not in (None, False)]
    if not flags:
        return
    method = _("--gptq has no {flag}.") if gptq else _("{flag} is for --gptq.")
    raise UsageError(method.format(flag=flags[0]), _("`vigtui quantize --help` shows which flag belongs to which."))
