"""What a person asks of the workshop, as one value."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...core.errors import UsageError
from ...core.i18n import _

WORKS = ("convert", "quantize", "gptq", "merge")
FORMS = ("gguf", "hf", "pth", "adapter")
"""What `convert` can make."""


@dataclass(frozen=True, slots=True)
class Quantizing:
    """How llama.cpp quantizes: `imatrix` a file, or `calibration` "fr", "en", "mixed" or a file to compute one from."""

    leave_output_tensor: bool = False
    pure: bool = False
    imatrix: Path | None = None
    calibration: str | None = None
    allow_requantize: bool = False


@dataclass(frozen=True, slots=True)
class Packing:
    """How gptqmodel quantizes: `calibration` "fr", "en", "mixed" or a file, of which `samples` pieces are read."""

    bits: int = 4
    group_size: int = 128
    act_order: bool = False
    sym: bool = True
    damp: float = 0.05
    calibration: str = "mixed"
    samples: int = 128
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Legacy:
    """What a file of before GGUF does not say: the ratio of heads to KV heads, the RMS epsilon, the context in tokens,
    and a folder with the original tokenizer and config.json."""

    gqa: int = 1
    eps: float | None = None
    context: int = 2048
    metadata: Path | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """One run of the workshop: `work` is one of WORKS, `source` a name, a path or a reference to pull.

    `adapters` are (name, path or reference, scale), `base` the model of an adapter that is converted alone; `types`
    GGUF types of the products; `output` the file or folder of the only product, None a place of vigtui's own. `tokens`
    is how many of each text the quality report reads. Raises UsageError for what cannot be meant.
    """

    work: str
    source: str
    adapters: tuple[tuple[str, float], ...] = ()
    alpha: float | None = None
    base: str | None = None
    to: str = "gguf"
    types: tuple[str, ...] = ()
    name: str | None = None
    output: Path | None = None
    check: bool = True
    keep: bool = False
    force: bool = False
    threads: int | None = None
    tokens: int = 2048
    quantizing: Quantizing = field(default_factory=Quantizing)
    packing: Packing = field(default_factory=Packing)
    legacy: Legacy = field(default_factory=Legacy)

    def __post_init__(self) -> None:
        if self.work not in WORKS or self.to not in FORMS:
            raise ValueError(f"{self.work} {self.to}")
        if self.work == "merge" and not self.adapters:
            raise UsageError(_("A merge needs an adapter."), _("Name it with --lora."))
        if self.work == "quantize" and not self.types:
            raise UsageError(
                _("Which type?"), _("Name it with -q, such as -q Q4_K_M; --gptq makes a GPTQ model instead.")
            )
        several = len(set(self.types)) > 1
        if several and (self.output or ":" in (self.name or "")):
            raise UsageError(
                _("One name for several products."), _("Give --name without a tag, and no --output, or one type a run.")
            )
        if self.work == "merge" and not self.types and (self.quantizing.imatrix or self.quantizing.calibration):
            raise UsageError(_("An importance matrix is for quantizing."), _("Name the type with -q."))
        if self.quantizing.imatrix and self.quantizing.calibration:
            raise UsageError(_("{one} and {other} exclude each other.").format(one="--imatrix", other="--calibration"))

    def values(self) -> dict[str, Any]:
        """Give the parameters that decide what the product holds and that are set, as JSON values."""
        plain: Mapping[str, Any] = {"work": self.work}
        if self.work == "merge":
            plain = {**plain, "alpha": self.alpha, "scales": [scale for _ref, scale in self.adapters]}
        if self.work == "gptq":
            plain = {**plain, **asdict(self.packing)}
        if self.types and self.work in ("quantize", "merge"):
            plain = {**plain, **asdict(self.quantizing)}
        given = {name: value for name, value in plain.items() if value is not None and value is not False}
        return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
