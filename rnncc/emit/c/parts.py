"""A C file as data: its arrays and functions, and what the parts of a model share of them.

Non-Goals: what stands in the functions (`unit`); the text around them (`text`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rnncc.common.user_text import Code, comment
from rnncc.emit.c.names import CNames
from rnncc.emit.c.packing import PackedLanes

REAL = {"float32": "float", "float64": "double"}


@dataclass(frozen=True)
class CArray:
    """An array of the file's: shape and elements. each_step: an input of which every step has its
    own; a context has one for all."""

    name: str
    shape: tuple[int, ...]
    values: np.ndarray | None = None
    each_step: bool = True
    kind: str = "real"  # of its numbers; weights that sums read may be "weight"
    rows: int = 1  # of a state that is kept of every step of a block: those, and the first

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape, dtype=int))


@dataclass
class CPart:
    """Lines of a function. turns: whether it loops over the steps of a block around them."""

    turns: bool
    lines: list[str]


@dataclass
class CKernel:
    """A function over the steps of a block."""

    name: str
    doc: Code
    parts: list[CPart] = field(default_factory=list)
    advances: list[tuple[str, int]] = field(default_factory=list)  # states, at each step's end

    def add(self, turns: bool, lines: list[str]) -> None:
        if not self.parts or self.parts[-1].turns != turns:
            self.parts.append(CPart(turns, []))
        self.parts[-1].lines += lines


@dataclass
class CUnit:
    prefix: str
    title: Code
    real: str
    block: int
    inputs: list[CArray]  # of one step
    outputs: list[CArray]
    states: list[CArray]  # values: what a reset begins with
    works: list[CArray]  # of one block
    weights: list[CArray]
    kernels: list[CKernel]
    functions: set[str]  # of templates/c, those that are called
    widths: list[int]  # of tiles of lanes
    narrow: list[int]  # of tiles that are a whole row of few lanes
    tall: list[int]  # of `widths`, which are added to several rows at once
    loose: bool  # whether anything is summed of weights that aren't packed
    products: int  # multiply-adds of a step
    storage: str  # of the weights that sums read: "", "bfloat16" or "int8"

    @property
    def state_elements(self) -> int:
        return sum(s.elements for s in self.states)


class UnitParts:
    """What is gathered for one file. prefix: what its names begin with. named: those of kernels and
    arrays; fields: of the struct."""

    def __init__(self, prefix: str, dtype: str, storage: str, block: int) -> None:
        self.prefix, self.dtype, self.storage, self.block = prefix, dtype, storage, block
        self.named, self.fields = CNames(), CNames()
        self.packing = PackedLanes(prefix, self.named, REAL[dtype], storage)
        self.functions: set[str] = set()
        self.inputs: list[CArray] = []
        self.outputs: list[CArray] = []
        self.states: list[CArray] = []
        self.works: list[CArray] = []
        self.weights: list[CArray] = []
        self.kernels: list[CKernel] = []

    @property
    def ports(self) -> set[str]:
        """Names of the functions' parameters."""
        return {f"in_{i.name}" for i in self.inputs} | {f"out_{o.name}" for o in self.outputs}

    def work(self, name: str, shape: tuple[int, ...], every_step: bool) -> str:
        """A place in the struct, of every step of a block or of one."""
        field_name = self.fields.fresh_of(name, "")
        rows = (self.block,) if every_step else ()
        self.works.append(CArray(field_name, (*rows, *shape)))
        return f"s->{field_name}"

    def constant(self, name: str, values: np.ndarray) -> CArray:
        """An array that isn't written before it is put into `weights`."""
        return CArray(f"{self.prefix}_w_{self.named.fresh_of(name, '')}", values.shape, values)

    def unit(self, title: str) -> CUnit:
        packing = self.packing
        arrays = [CArray(n, v.shape, v, kind=packing.kinds[n]) for n, v in packing.arrays.items()]
        arrays += self.weights
        return CUnit(
            prefix=self.prefix,
            title=Code(c_comment(title)),
            real=REAL[self.dtype],
            block=self.block,
            inputs=self.inputs,
            outputs=self.outputs,
            states=self.states,
            works=self.works,
            weights=arrays,
            kernels=self.kernels,
            functions=self.functions,
            widths=sorted(packing.widths),
            narrow=sorted(packing.narrow),
            tall=sorted(packing.tall),
            loose=packing.loose,
            products=packing.products,
            storage=self.storage,
        )


def c_comment(text: str) -> str:
    """The text as it can stand between /* and */."""
    shown = str(comment(text)).replace("*/", "* /").replace("/*", "/ *")
    return shown.replace("??", "? ?").replace("\\", "\\ ")
