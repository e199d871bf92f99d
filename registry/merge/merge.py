"""A base model and its LoRA adapters → one Hugging Face folder, tensor by tensor.

Compared with PEFT's merge_and_unload: nothing is loaded as a whole, sums are made in float32 whatever the dtypes, and a
tensor of the adapter that has no place stops the merge before anything is written.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import CapacityError, UsageError
from ...core.i18n import _
from ...core.progress import Progress, silent
from ..convert import publish
from . import files, layout
from .plan import Survey, plan, survey

__all__ = ["Survey", "merge", "survey"]


def merge(
    base: Path,
    adapters: Sequence[tuple[Path, float]],
    target: Path,
    alpha: float | None = None,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Write `base` with the adapters merged as the folder `target`, in its dtypes and shards; give the notices.

    W + scale·alpha/r·B·A in float32 (alpha/√r with rsLoRA, magnitudes with DoRA), rounded to the base's dtype. Memory:
    the factors of one tensor and about 100 MB. Raises what `survey` raises, CapacityError for a full disk.
    """
    _require_apart(target, [base, *(path for path, _scale in adapters)])
    found = plan(base, adapters, alpha)
    with publish.folder(target) as temporary:
        _require_room(found.survey.size, temporary)
        done = 0

        def report() -> None:
            nonlocal done
            done += 1
            progress(_("merge"), done, found.survey.tensors)

        layout.write(found.shards, base, temporary, report)
        files.copy(found.beside, temporary, found.vocabulary)
    return found.survey.notices


def _require_apart(target: Path, sources: Sequence[Path]) -> None:
    """Refuse a target that is one of the sources, inside one, or around one."""
    place = target.resolve()
    for source in (path.resolve() for path in sources):
        if place == source or source in place.parents or place in source.parents:
            raise UsageError(
                _("{target} and {source} overlap: a merge never writes over what it reads.").format(
                    target=target, source=source
                ),
                _("Choose another name."),
            )


def _require_room(size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise CapacityError(
            _("The merged model takes {size:.1f} GB, and {free:.1f} GB are free.").format(
                size=size / 1e9, free=free / 1e9
            ),
            _("Free some space, or choose another folder."),
        )
