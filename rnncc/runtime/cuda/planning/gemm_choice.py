"""Who does the contractions of a kernel that consists of nothing else: the one place to choose.

    the library   where there is one and strides are those of matrices
    tiles         else: our own kernel takes any strides

Non-Goals: which contractions there are (`tiler`); launching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rnncc.artifact.grid_sync import Gpu
from rnncc.runtime.cuda.kernels.gemm_tiles import Contraction
from rnncc.runtime.cuda.kernels.matmuls import Work, merged, work_of


@dataclass(frozen=True, slots=True)
class Bulk:
    """Pieces in order; precision: of the library's operands. said: for `plan()`."""

    pieces: tuple[Work | Contraction, ...]
    precision: str
    said: str

    @property
    def copies(self) -> int:
        """Bytes that one of the pieces needs for copied operands."""
        return max((p.copies for p in self.pieces if isinstance(p, Work)), default=0)

    @property
    def ones(self) -> int:
        return max((p.ones for p in self.pieces if isinstance(p, Work)), default=1)


def bulk_of(
    contractions: Sequence[Contraction], gpu: Gpu, item: int, precision: str = "float32"
) -> Bulk:
    together = merged(contractions)
    pieces: list[Work | Contraction] = [*together]
    if gpu.library:
        pieces = [work_of(c, item) or c for c in together]
    products = [p for p in pieces if isinstance(p, Work)]
    rest, said = len(pieces) - len(products), []
    if products:
        copied = sum(bool(p.copies) for p in products)
        kind = precision if item == 4 else "float64"
        said.append(f"{_counted(len(products), 'product')} by {gpu.library} in {kind}")
        said += [f"of which {copied} with a copied operand"] if copied else []
    if rest:
        why = "strides are no matrix's" if gpu.library else gpu.no_library
        kind = "float32" if item == 4 else "float64"
        said.append(f"{_counted(rest, 'contraction')} in tiles of 64 x 64 in {kind}: {why}")
    return Bulk(tuple(pieces), precision, "; ".join(said))


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n > 1 else ''}"
