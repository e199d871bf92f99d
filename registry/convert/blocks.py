"""Quantized blocks as ggml had them in the spring of 2023, in the layout of GGUF.

Reference: ggml.c before May 12, 2023 (a byte held two neighbours) and before May 19 (scales were float32). The fifth
bits of Q5_0 and Q5_1 stayed where they were.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

WIDE = {"Q4_0": (1, 20), "Q4_1": (2, 24), "Q8_0": (1, 36)}
"""Type → float32 numbers at the start of a block, bytes of the block, until ggjt 2."""
_NIBBLES = {"Q4_0": 2, "Q4_1": 4, "Q5_0": 6, "Q5_1": 8}
"""Type → bytes of a block of GGUF before its 16 bytes of nibbles."""


def lift(rows: "np.ndarray", kind: str, version: int) -> "np.ndarray | None":
    """Give whole rows of blocks, (n, bytes) uint8, of the ggjt `version` in GGUF's layout.

    None where a scale is no float16: the blocks are of another layout, as some of March 2023.
    """
    lifted: np.ndarray | None = rows
    if version < 3 and kind in WIDE:
        lifted = _narrow(rows, *WIDE[kind])
    if version < 2 and kind in _NIBBLES and lifted is not None:
        lifted = _parted(lifted, _NIBBLES[kind])
    return lifted


def _narrow(rows: "np.ndarray", scales: int, size: int) -> "np.ndarray | None":
    """Round the scales to float16."""
    import numpy as np  # 80 ms: only when weights are read

    blocks = rows.reshape(-1, size)
    numbers = np.ascontiguousarray(blocks[:, : 4 * scales]).view("<f4")
    if not np.abs(numbers).max(initial=0.0) <= 65504.0:  # false for NaN too
        return None
    halves = numbers.astype("<f2").view(np.uint8)
    return np.concatenate([halves, blocks[:, 4 * scales :]], axis=1).reshape(rows.shape[0], -1)


def _parted(rows: "np.ndarray", before: int) -> "np.ndarray":
    """Bring nibbles from pairs of neighbours to pairs of the first and the second half of a block."""
    import numpy as np

    blocks = rows.reshape(-1, before + 16).copy()
    pairs = blocks[:, before:]
    elements = np.stack([pairs & 15, pairs >> 4], axis=2).reshape(-1, 32)
    blocks[:, before:] = elements[:, :16] | elements[:, 16:] << 4
    return blocks.reshape(rows.shape)
