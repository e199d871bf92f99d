"""The weights of a Hugging Face folder, whichever files hold them: safetensors or PyTorch, one file or shards."""

from pathlib import Path

from ...core.errors import FormatError
from ...core.i18n import _
from . import safetensors, torchzip

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"


def index(folder: Path) -> dict[str, safetensors.Tensor]:
    """Give every tensor of the model in `folder`, by name. Raises FormatError when one of its files is not usable."""
    tensors: dict[str, safetensors.Tensor] = {}
    for path in files(folder):
        if not path.is_file():
            raise FormatError(
                _("{folder} lacks {name}.").format(folder=folder, name=path.name), _("Fetch the missing file.")
            )
        tensors |= safetensors.whole(path) if path.suffix == ".safetensors" else torchzip.tensors(path)
    return tensors


def files(folder: Path) -> list[Path]:
    """Give the files that the model in `folder` consists of, safetensors before PyTorch; some may be missing."""
    for name in (SAFETENSORS, TORCH):
        listed = safetensors.shards(folder, name)
        if len(listed) > 1 or listed[0].is_file() or listed[0].name != name:
            return listed
    loose = sorted(path for path in folder.glob("*.safetensors") if path.name != "adapter_model.safetensors")
    return loose or sorted(folder.glob("pytorch_model-*-of-*.bin")) or [folder / SAFETENSORS]
