"""The tensors of a PyTorch file as byte ranges of it, found without torch and without running anything in its pickle.

Formats: see checkpoint.py. Each tensor's storage is stored plainly, so that what safetensors.py does with its own
tensors works with these.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path

from ...core.errors import FormatError
from ...core.i18n import _
from .. import checkpoint, pickled
from .safetensors import ITEM, Tensor

_SHARED = 8
"""How many times the file's size its tensors may take together: tied weights share a storage, bombs share more."""


def tensors(path: Path) -> Mapping[str, Tensor]:
    """Give the tensors of the checkpoint `path` (torch.save since 1.6 or before), by name.

    Raises FormatError for a damaged file, one whose pickle would run code, and tensors that are no plain byte range.
    """
    held = checkpoint.read(path)
    if held.strange:
        raise FormatError(
            _("{path} would run code when it is unpickled: {calls}.").format(
                path=path, calls=", ".join(name[:80] for name in held.strange[:5])
            ),
            _("Do not open it with other programs; fetch the safetensors form."),
        )
    if not held.tensors:
        raise FormatError(_("{path} holds no weights.").format(path=path), _("Give the file with the model's weights."))
    found = {name: _tensor(name, tensor, held, path) for name, tensor in held.tensors.items()}
    if sum(tensor.end - tensor.begin for tensor in found.values()) > _SHARED * held.size:
        raise _damaged(path)
    return found


def _tensor(name: str, tensor: pickled.Tensor, held: checkpoint.Checkpoint, path: Path) -> Tensor:
    problem = None
    if tensor.dtype not in ITEM:
        problem = _("its type is {type}").format(type=tensor.dtype)
    elif not tensor.contiguous:
        problem = _("it is not contiguous")
    if problem:
        raise FormatError(
            _("{path}: {name} cannot be read: {problem}.").format(path=path, name=name, problem=problem),
            _("Fetch the safetensors form, or save it again in PyTorch with `.half().contiguous()`."),
        )
    begin, end = held.places[tensor.key]
    start = begin + tensor.offset * ITEM[tensor.dtype]
    stop = start + prod(tensor.shape) * ITEM[tensor.dtype]
    if stop > end:
        raise _damaged(path)
    return Tensor(name, tensor.dtype, tensor.shape, path, start, stop)


def _damaged(path: Path) -> FormatError:
    return FormatError(_("{path} is not a PyTorch file that can be read.").format(path=path), _("Fetch it again."))
