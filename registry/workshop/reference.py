"""What a product is compared with: the form in half precision, or for a merge its base with the adapters applied."""

from collections.abc import Sequence

from ...core.errors import VigtuiError
from ...core.i18n import _
from .chain import ROOM, Chain
from .source import Source
from .stage import Material, Stage, make

Checked = tuple[Stage | None, tuple[str, ...]]
"""A check, and what people should know of it."""


def of_conversion(chain: Chain, made: Stage, type: str) -> Checked:
    """Check a conversion against its source in transformers, else against its own F32 form."""
    if usable("transformers"):
        return _measure(chain, made, "gguf", chain.folder(), "safetensors"), ()
    if type == "f32":
        return unchecked(chain, _("it needs the transformers backend"))
    return _measure(chain, made, "gguf", chain.convert(chain.folder(), "f32")), ()


def of_quantization(chain: Chain, made: Stage, start: Material) -> Checked:
    """Check a quantization against the GGUF file that it was made from."""
    return _measure(chain, made, "gguf", start), ()


def of_packing(chain: Chain, made: Stage) -> Checked:
    """Check a GPTQ model against its source in transformers."""
    if not usable("gptq"):
        return unchecked(chain, _("it needs the gptq backend"))
    return _measure(chain, made, "gptq", chain.folder(), "safetensors"), ()


def of_merge(chain: Chain, made: Stage) -> Checked:
    """Check a merged folder against its base with the adapters applied at run time by transformers."""
    if not usable("transformers"):
        return unchecked(chain, _("it needs the transformers backend"))
    described = all((source.path / "adapter_config.json").is_file() for source, *_rest in _local(chain))
    if not described or not _expressible(chain):
        return unchecked(chain, _("nothing here applies this adapter at run time"))
    pairs = [(material, scale) for _source, material, scale in chain.adapters]
    return _measure(chain, made, "safetensors", chain.folder(), "safetensors", pairs), ()


def of_merged_quantization(chain: Chain, made: Stage, merged: Material) -> Checked:
    """Check a quantized merge against its base with the adapters applied at run time by llama.cpp."""
    if not _expressible(chain):
        said = _("The report compares with the merge in half precision: nothing applies this adapter at run time.")
        return _measure(chain, made, "gguf", merged), (said,) if chain.order.check else ()
    base = chain.folder()
    pairs = [(chain.applied(source, material, base), scale) for source, material, scale in chain.adapters]
    return _measure(chain, made, "gguf", chain.gguf(), "gguf", pairs), ()


def unchecked(chain: Chain, reason: str) -> Checked:
    """Give no check, and why."""
    said = _("There is no quality report: {reason}.").format(reason=reason)
    return None, (said,) if chain.order.check else ()


def usable(name: str) -> bool:
    """Tell whether the backend `name` can run here."""
    from ... import backends

    try:
        return backends.backend_class(name).unavailable() is None
    except VigtuiError:
        return False


def backend(kind: str) -> str:
    """Give the backend that weighs models of this kind."""
    from ..open import BACKENDS

    return BACKENDS[kind][0]


def _measure(
    chain: Chain,
    made: Stage,
    kind: str,
    reference: Material,
    reference_kind: str = "gguf",
    adapters: Sequence[tuple[Material, float]] = (),
) -> Stage | None:
    if not chain.order.check:
        return None
    return make(
        "measure",
        memory=max(made.size, reference.size) + ROOM,
        label=made.label,
        beside={"threads": chain.order.threads, "names": [made.title, _called(chain, reference, bool(adapters))]},
        product=[kind, made],
        backend=backend(kind),
        reference=[reference_kind, reference],
        reference_backend=backend(reference_kind),
        adapters=adapters,
        tokens=chain.order.tokens,
    )


def _called(chain: Chain, reference: Material, adapted: bool) -> str:
    """Name a reference for people: the model, its type, and the adapters that apply to it."""
    label = reference.label if isinstance(reference, Stage) else ""
    names = [one.record.ref for one, _material, _scale in chain.adapters] if adapted else []
    return " + ".join([" ".join(filter(None, (chain.source.record.ref, label))), *names])


def _local(chain: Chain) -> list[tuple[Source, Material, float]]:
    """Give the adapters whose files are here."""
    return [one for one in chain.adapters if not one[0].pull]


def _expressible(chain: Chain) -> bool:
    """Tell whether the adapters can be applied at run time."""
    from ..convert import adapter as peft
    from ..merge.adapter import read

    try:
        for source, _material, _scale in _local(chain):
            peft.refuse(read(source.path, chain.order.alpha))
    except VigtuiError:
        return False
    return True
