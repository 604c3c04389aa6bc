"""The copies around a direction's kernels, of rows with padding, as the words of one kernel.

Non-Goals: which copies there are (`runtime.planning.copies`).
"""

from __future__ import annotations

from rnncc.common.machine import LANE_PAD
from rnncc.runtime.cpu.intrinsics.kernel_namespace import word
from rnncc.runtime.cpu.kernels.loop_helpers import DESC_WORDS, copy_pieces
from rnncc.runtime.jit.kernel import kernel
from rnncc.runtime.planning.copies import Move, Mover
from rnncc.runtime.planning.layouts import Layout, pad

SHARE_WORDS = 2  # of a part: its pieces, and where their descriptions begin, in bytes


@kernel
def move_all(block, part):
    own = block + (1 + part * SHARE_WORDS) * 8
    copy_pieces(word(block, 0), 0, 0, block + word(own, 1), word(own, 0))


class PaddedMover(Mover):
    """Clears the padding of a row as well."""

    def row(self, layout: Layout) -> tuple[int, ...]:
        return (*layout.shape[:-1], pad(layout.last)) if layout.shape else (LANE_PAD,)


def words_of(piece: Move) -> list[int]:
    """A piece's description; its first two words are offsets of addresses."""
    axes = [*piece.shape, *piece.source.strides, *piece.target.strides]
    words = [piece.source.offset, piece.target.offset, len(piece.shape), *axes]
    return words + [0] * (DESC_WORDS - len(words))
