"""The stages as functions: what runs in the child process, by name.

Each takes the stage's arguments, the path to write and a progress callback, and gives a JSON value.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...backends.base import ModelFiles
from ...core.progress import Progress

Values = dict[str, Any]


def _convert(given: Values, output: Path, progress: Progress) -> Values:
    from ..convert import model

    return {"notices": model.convert(Path(given["source"]), output, given["type"], progress)}


def _legacy(given: Values, output: Path, progress: Progress) -> Values:
    from ..convert import legacy

    metadata = Path(given["metadata"]) if given["metadata"] else None
    said = legacy.convert(
        Path(given["source"]),
        output,
        gqa=given["gqa"],
        eps=given["eps"],
        context=given["context"],
        metadata=metadata,
        progress=progress,
    )
    return {"notices": said}


def _adapter(given: Values, output: Path, progress: Progress) -> Values:
    from ..convert import adapter

    base = Path(given["base"]) if given["base"] else None
    adapter.convert(Path(given["source"]), base, output, progress, given["alpha"])
    return {}


def _to_hf(given: Values, output: Path, progress: Progress) -> Values:
    from ..convert import meta

    return {"notices": meta.to_hf(Path(given["source"]), output, progress)}


def _from_hf(given: Values, output: Path, progress: Progress) -> Values:
    from ..convert import meta

    return {"notices": meta.from_hf(Path(given["source"]), output, progress)}


def _merge(given: Values, output: Path, progress: Progress) -> Values:
    from ..merge.merge import merge

    adapters = [(Path(path), scale) for path, scale in given["adapters"]]
    return {"notices": merge(Path(given["base"]), adapters, output, given["alpha"], progress)}


def _imatrix(given: Values, output: Path, progress: Progress) -> Values:
    from . import imatrix, texts

    text = "\n\n".join(texts.calibration(given["calibration"]))
    chunks = imatrix.compute(Path(given["source"]), text, output, threads=given["threads"], progress=progress)
    return {"chunks": chunks}


def _quantize(given: Values, output: Path, progress: Progress) -> Values:
    from .quantize import quantize

    done = quantize(
        Path(given["source"]),
        output,
        given["type"],
        threads=given["threads"],
        leave_output_tensor=given["leave_output_tensor"],
        pure=given["pure"],
        imatrix=Path(given["imatrix"]) if given["imatrix"] else None,
        allow_requantize=given["allow_requantize"],
        progress=progress,
    )
    return asdict(done)


def _gptq(given: Values, output: Path, progress: Progress) -> Values:
    from . import gptq, texts

    names = ("bits", "group_size", "act_order", "sym", "damp", "samples", "device", "threads")
    said = gptq.quantize(
        Path(given["source"]),
        output,
        texts=texts.calibration(given["calibration"]),
        work=output.parent / "work",
        progress=progress,
        **{name: given[name] for name in names},
    )
    return {"notices": said}


def _measure(given: Values, _output: Path, progress: Progress) -> Values:
    from . import quality, texts

    pairs = zip(given["names"], (given["product"], given["reference"]), strict=True)
    product, reference = (ModelFiles(name, kind, Path(path)) for name, (kind, path) in pairs)
    report = quality.measure(
        product,
        given["backend"],
        reference,
        given["reference_backend"],
        texts.evaluation(),
        adapters=[(Path(path), scale) for path, scale in given["adapters"]],
        tokens=given["tokens"],
        threads=given["threads"],
        progress=progress,
    )
    return {"report": report.values(), "garbage": report.garbage}


WORKS: Mapping[str, Callable[[Values, Path, Progress], Values]] = {
    "convert": _convert, "legacy": _legacy, "adapter": _adapter, "to_hf": _to_hf, "from_hf": _from_hf,
    "merge": _merge, "imatrix": _imatrix, "quantize": _quantize, "gptq": _gptq, "measure": _measure,
}  # fmt: skip
"""Work of a stage → what does it."""
