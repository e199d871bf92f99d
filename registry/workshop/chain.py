"""The stages between a source and its products."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ...core.errors import FormatError
from ...core.i18n import _
from ..convert import architecture
from ..hashes import sha256
from . import imatrix, texts
from .ftype import TYPES, named
from .order import Order
from .source import Source
from .stage import Input, Material, Stage, make

ROOM = 512 << 20
"""Bytes that a stage takes beside the weights it holds."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Gives the stages for one order, `source` and `adapters` being what they start from, with their contents.

    `size` and `memory` are what a merge writes and takes, in bytes, where that is known.
    """

    order: Order
    source: Source
    start: Material
    adapters: Sequence[tuple[Source, Material, float]] = ()
    size: int | None = None
    memory: int = 0

    @property
    def half(self) -> str:
        """The type of 16 bits that loses the least of the source's weights."""
        return "bf16" if self.source.dtype == "BF16" else "f16"

    def folder(self) -> Material:
        """Give the Hugging Face folder of the source. Raises FormatError where there is none to be had."""
        if self.source.kind == "meta":
            return make("to_hf", self.source.record.name, size=self.source.size, source=self.start)
        if self.source.kind == "hf":
            return self.start
        text = _("{path} is not in full precision, or not in a form that this can start from.")
        raise FormatError(text.format(path=self.source.path), _("Name the original Hugging Face folder or repository."))

    def merge(self) -> Stage:
        """Give the merge of the adapters into the source. Raises FormatError."""
        if not any(source.words for source, *_rest in self.adapters):
            _refuse_wordless(self.source)
        pairs = [(material, scale) for _source, material, scale in self.adapters]
        size = self.size or self.source.size
        more = {"base": self.folder(), "adapters": pairs, "alpha": self.order.alpha}
        name = "-".join(one.record.name for one in (self.source, *(source for source, *_rest in self.adapters)))
        return make("merge", name[:100], size=size, memory=self.memory, **more)  # a conversion takes the folder's name

    def gguf(self) -> Material:
        """Give the source as a GGUF file in half precision, unless it is a GGUF file already."""
        if self.source.kind == "gguf":
            return self.start
        return self.legacy() if self.source.kind == "ggml" else self.convert(self.folder(), self.half)

    def convert(self, folder: Material, type: str) -> Stage:
        """Give the conversion of a Hugging Face folder to a GGUF file of `type`. Raises FormatError."""
        if self.source.kind == "hf":
            _refuse(self.source)
        size = length(self.source.parameters, type)
        return make("convert", "model.gguf", size=size, label=type.upper(), source=folder, type=type)

    def legacy(self) -> Stage:
        """Give the conversion of a file of before GGUF."""
        return make("legacy", "model.gguf", size=self.source.size, source=self.start, **asdict(self.order.legacy))

    def unmerge(self) -> Stage:
        """Give the conversion of the source to Meta's checkpoint."""
        return make("from_hf", "pth", size=self.source.size, source=self.folder())

    def applied(self, source: Source, material: Material, base: Material | None) -> Stage:
        """Give the conversion of an adapter to the form that llama.cpp applies at run time."""
        more = {"source": material, "base": base, "alpha": self.order.alpha}
        return make("adapter", "adapter.gguf", size=source.size * 2, **more)

    def matrix(self, start: Material) -> Material | None:
        """Give the importance matrix of the GGUF file `start`, where the order wants one."""
        options = self.order.quantizing
        if options.imatrix:
            imatrix.load(options.imatrix.expanduser())  # a damaged one is refused before the source is converted
            return given_file(options.imatrix)
        if not options.calibration:
            return None
        threads = {"threads": self.order.threads}
        text = calibration(options.calibration)
        memory = start.size + ROOM
        return make("imatrix", "imatrix.gguf", memory=memory, beside=threads, source=start, calibration=text)

    def quantize(self, start: Material, type: str, matrix: Material | None) -> Stage:
        """Give the quantization of the GGUF file `start`."""
        options = self.order.quantizing
        return make(
            "quantize",
            "model.gguf",
            size=length(self.source.parameters, type),
            label=type,
            beside={"threads": self.order.threads},
            source=start,
            type=type,
            imatrix=matrix,
            leave_output_tensor=options.leave_output_tensor,
            pure=options.pure,
            allow_requantize=options.allow_requantize,
        )

    def gptq(self) -> Stage:
        """Give the quantization with GPTQ. Raises FormatError or UsageError, BackendError where it is not installed."""
        from .gptq_source import needs, require, require_known  # ast and what it needs: only when GPTQ is wanted

        options, source = self.order.packing, self.source
        named = {name: value for name, value in asdict(options).items() if name not in ("device", "calibration")}
        require(options.bits, options.group_size, options.damp, options.samples)
        size, memory = source.parameters * (options.bits + 1) // 2, source.parameters * 4 + ROOM
        if source.pull:
            require_known(source.settings()[0])
        elif source.kind == "hf":
            size, memory = needs(source.path, options.bits, options.group_size, options.samples)
        return make(
            "gptq",
            "gptq",
            size=size,
            memory=memory,
            label="GPTQ",
            beside={"device": options.device, "threads": self.order.threads},
            source=self.folder(),
            calibration=calibration(options.calibration),
            **named,
        )


def length(parameters: int, type: str) -> int:
    """Give the bytes of so many weights in `type`, estimated. Raises UsageError for a type that does not exist."""
    return int(parameters * TYPES[named(type)].bits / 8)


def given_file(path: Path) -> Input:
    """Give a file that an option names, told from any other by its hash. Raises NotFoundError."""
    place = path.expanduser().absolute()
    return Input(place, sha256(place), place.stat().st_size)


def calibration(name: str) -> Input | str:
    """Give a calibration text: the name of one of ours, or a file. Raises what texts.calibration raises."""
    if name in (*texts.LANGUAGES, "mixed"):
        return name
    texts.calibration(str(Path(name).expanduser()))  # an hour of work does not end at a word misspelt
    return given_file(Path(name))


def _refuse_wordless(source: Source) -> None:
    """Raise FormatError for a folder without a tokenizer: nobody could talk to what is made of it."""
    if source.kind == "hf" and not source.words:
        raise FormatError(
            _("{path} has no tokenizer.").format(path=source.pull.repository if source.pull else source.path),
            _("Fetch tokenizer.model or tokenizer.json of this model into that folder."),
        )


def _refuse(source: Source) -> None:
    """Raise FormatError for what no conversion can be made of: no tokenizer, or an architecture that is not known."""
    _refuse_wordless(source)
    architecture.find(*source.settings())
