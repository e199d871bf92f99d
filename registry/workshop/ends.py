"""Which products an order has, and what cannot be made."""

from dataclasses import dataclass

from ...core.errors import UsageError
from ...core.i18n import _
from . import reference
from .chain import Chain
from .ftype import named
from .stage import Stage


@dataclass(frozen=True, slots=True)
class End:
    """A product to be: the stage that makes it, the tag of its name, what kind of record it will be, and its check.

    Kind "meta" is a checkpoint in Meta's form, which is not registered.
    """

    made: Stage
    tag: str
    kind: str
    check: Stage | None = None
    notices: tuple[str, ...] = ()


def ends(chain: Chain) -> list[End]:
    """Give the products with their stages. Raises UsageError or FormatError for what cannot be made."""
    order = chain.order
    if order.work == "convert":
        return [_converted(chain)]
    if order.work == "gptq":
        return [_packed(chain)]
    if order.work == "merge" and not order.types:
        made = chain.merge()
        return [End(made, "", "safetensors", *reference.of_merge(chain, made))]
    return _quantized(chain)


def _converted(chain: Chain) -> End:
    order, kind, path = chain.order, chain.source.kind, chain.source.path
    if order.types and (order.to != "gguf" or kind in ("adapter", "ggml")):
        raise UsageError(_("This conversion keeps the types of the weights."), _("Leave --type out."))
    if kind == "adapter":
        return _adapted(chain)
    if order.to == "adapter":
        raise UsageError(_("{name} is no adapter.").format(name=path), _("Leave --to adapter out."))
    if order.to == "pth":
        return End(chain.unmerge(), "", "meta")
    if order.to == "hf":
        return _unfolded(chain)
    if kind == "gguf":
        hint = _("`vigtui quantize` makes another type of it.")
        raise UsageError(_("{path} is a GGUF file already.").format(path=path), hint)
    if kind == "ggml":
        checked = reference.unchecked(chain, _("nothing else reads the old file"))
        return End(chain.legacy(), chain.source.dtype or "F16", "gguf", *checked)
    type = (order.types or (chain.half,))[0].lower()
    made = chain.convert(chain.folder(), type)
    return End(made, type.upper(), "gguf", *reference.of_conversion(chain, made, type))


def _unfolded(chain: Chain) -> End:
    made = chain.folder()
    if not isinstance(made, Stage):
        raise UsageError(_("{path} is a Hugging Face folder already.").format(path=chain.source.path))
    return End(made, "", "safetensors")


def _adapted(chain: Chain) -> End:
    path = chain.source.path
    if chain.order.to not in ("gguf", "adapter"):
        raise UsageError(_("An adapter can only be converted to a GGUF adapter."), _("Leave --to out."))
    if path.suffix == ".gguf":
        raise UsageError(_("{path} is a GGUF adapter already.").format(path=path))
    base = chain.adapters[0][1] if chain.adapters else None  # the model that it names, where that is known here
    return End(chain.applied(chain.source, chain.start, base), "GGUF", "adapter")


def _quantized(chain: Chain) -> list[End]:
    from .quantize import require_matrix  # ctypes and what it needs: only when something is quantized

    source, merged = chain.source, chain.order.work == "merge"
    if source.quantized and not chain.order.quantizing.allow_requantize:
        raise UsageError(
            _("{name} is quantized already ({type}).").format(name=source.record.ref, type=source.dtype),
            _("Start from its F16 or Hugging Face form; --allow-requantize does it all the same, at a loss."),
        )
    start = chain.convert(chain.merge(), chain.half) if merged else chain.gguf()
    matrix = chain.matrix(start)
    found = []
    for type in dict.fromkeys(map(named, chain.order.types)):
        if matrix is None:
            require_matrix(type)
        made = chain.quantize(start, type, matrix)
        check = reference.of_merged_quantization if merged else reference.of_quantization
        found.append(End(made, type, "gguf", *check(chain, made, start)))
    return found


def _packed(chain: Chain) -> End:
    options, made = chain.order.packing, chain.gptq()
    group = "nog" if options.group_size == -1 else f"{options.group_size}g"
    tag = f"GPTQ-{options.bits}bit-{group}{'-actorder' if options.act_order else ''}"
    return End(made, tag, "gptq", *reference.of_packing(chain, made))
