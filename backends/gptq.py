"""GPTQ checkpoints through gptqmodel: its kernels, the decode loop and cache of the transformers engine."""

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..core.errors import FormatError, UsageError
from ..core.i18n import _
from ..core.progress import Progress
from . import gptq_layout, placement
from .base import LoadOptions, ModelFiles
from .checkpoint import silenced
from .hf_vocab import settings_in
from .transformers import TransformersBackend

_LIMIT = 16 << 20
_CPU_GROUPS = (32, 64, 128, 256)
"""Group sizes of PyTorch's int4 product on a CPU (_weight_int4pack_mm_for_cpu)."""
_INDEX = "model.safetensors.index.json"


class GptqBackend(TransformersBackend):
    """2, 3, 4 and 8 bits, act-order or not, versions 1 and 2 of the format, with or without their settings."""

    name: ClassVar[str] = "gptq"

    @classmethod
    def unavailable(cls) -> str | None:
        return placement.missing("gptq", "torch", "transformers", "accelerate", "gptqmodel")

    def _check(self, options: LoadOptions) -> None:
        super()._check(options)
        if options.load_in:
            raise UsageError(
                _("--load-in has no meaning for a GPTQ model, which is quantized already."), _("Leave it out.")
            )

    def _weights(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> Any:
        chosen = placement.device(options.device)
        wanted: dict[str, Any] = {}
        if options.dtype:
            wanted["dtype"] = placement.dtype(options.dtype, None, chosen, 0)
        with tempfile.TemporaryDirectory(prefix="vigtui-gptq-") as place, _muted():
            self._layout = _stage(self._folder(model), _chosen(model.path), Path(place))
            # Four seconds, and it prints: only now, and in silence.
            from gptqmodel import BACKEND, GPTQModel

            if chosen.type == "cpu" and self._layout["group_size"] not in _CPU_GROUPS:
                wanted["backend"] = BACKEND.GPTQ_TORCH  # its own choice for 4 bits fails there
            made: Any = GPTQModel.load(
                place, device=str(chosen), trust_remote_code=options.remote_code, local_files_only=True, **wanted
            )
        loaded = made.model.eval()
        if chosen.type == "cpu":
            _uncompiled(loaded)
        return loaded

    def _dtype(self, loaded: Any, options: LoadOptions) -> str:
        bits, group = self._layout["bits"], self._layout["group_size"]
        groups = f"{group}g" if group > 0 else "nog"
        return f"GPTQ {bits}bit-{groups}, {super()._dtype(loaded, options)}"


def _uncompiled(loaded: Any) -> None:
    """Take the compilation of its kernels back that gptqmodel asks for.

    On a CPU it stalls the first token for up to 17 seconds, needs a C++ compiler, and was slower at 2 and 8 bits
    (118 ms against 37 ms for a layer of 2,048 × 2,048 at 8 bits), though faster at 3 (14 ms against 54 ms).
    """
    for module in loaded.modules():
        module.__dict__.pop("dequantize_weight", None)


def _chosen(path: Path) -> Path | None:
    """Give the file with the weights: `path` itself, or the one in the folder; None for the parts of a split one.

    Raises FormatError when the folder has several, as repositories of 2023 do.
    """
    if path.is_file():
        return path
    if (path / _INDEX).is_file():
        return None
    files = sorted(path.glob("*.safetensors"))
    for fits in (lambda file: file.name == "model.safetensors", lambda file: file.name.startswith("gptq_model-")):
        if found := [file for file in files if fits(file)]:
            return found[0]
    if len(files) != 1:
        raise FormatError(
            _("{path} holds {count} files of weights.").format(path=path, count=len(files)),
            _("Name one of them: {names}.").format(names=", ".join(file.name for file in files))
            if files
            else _("Fetch its safetensors file."),
        )
    return files[0]


def _stage(folder: Path, weights: Path | None, place: Path) -> Mapping[str, Any]:
    """Fill `place` with links to the model's files under the names that gptqmodel knows; give the settings used.

    The user's folder is never written to.
    """
    for file in folder.iterdir():
        other = file.suffix in (".safetensors", ".bin", ".pt") and weights is not None
        if file.is_file() and not other and file.name not in ("quantize_config.json", "quant_config.json"):
            (place / file.name).symlink_to(file.resolve())
    first = weights
    if weights is not None:
        (place / "model.safetensors").symlink_to(weights.resolve())
    else:
        first = next(iter(sorted(folder.glob("*.safetensors"))), folder / "model.safetensors")
    assert first is not None
    settings = _settings(folder, gptq_layout.read(first))
    (place / "quantize_config.json").write_text(json.dumps(settings))
    return settings


def _settings(folder: Path, found: gptq_layout.Layout) -> dict[str, Any]:
    """Give the settings that the folder states, filled up and put right by what its tensors show."""
    stated = settings_in(folder / "quantize_config.json", _LIMIT)
    stated = stated or settings_in(folder / "config.json", _LIMIT).get("quantization_config")
    stated = stated if isinstance(stated, dict) else {}
    sizes = {} if stated.get("dynamic") else {"bits": found.bits, "group_size": found.group}
    # Else an empty folder is made for the weights of a model that is being quantized.
    settings = {**found.settings(), **stated, **sizes, "offload_to_disk": False}
    if settings["sym"] is False and not settings.get("meta"):
        # gptqmodel refuses asymmetric checkpoints of other quantizers, which pack the same way.
        settings["meta"] = {"quantizer": ["gptqmodel:1.0.0"]}
    return settings


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Keep the library's banner, tables and bars off the terminal."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), silenced():
        yield
