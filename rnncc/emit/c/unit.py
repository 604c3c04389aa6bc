"""A Schedule and its weights -> CUnit: everything the C templates print, as finished strings.

    NAME_state      a struct: each state, what it becomes, and what one block of steps needs
    NAME_step       one step of one row
    NAME_block      n steps, bit for bit those of n calls of NAME_step

Sizes are numbers, weights are constants, there is one row, and nothing is allocated. What depends
on weights alone is worked out here, once.

Non-Goals: the text around the functions (templates/c); files (`export`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rnncc.artifact.cell import CellDescription
from rnncc.common.user_text import Code
from rnncc.emit.c.addresses import CAddresses
from rnncc.emit.c.contractions import Sums, of_all_steps
from rnncc.emit.c.parts import CArray, CKernel, UnitParts, c_comment
from rnncc.emit.c.row_stages import Unsupported, row_lines
from rnncc.emit.c.statements import CStatements
from rnncc.emit.shared.views import Loop
from rnncc.ir.interp import constants_of
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Program, Value
from rnncc.ir.sizes import Size
from rnncc.schedule.model import (
    Buffer,
    Kernel,
    LaneStage,
    RowStage,
    Schedule,
    Stage,
    View,
    views_read,
    written,
)

WEIGHTS = ("weight", "constant", "rate")


class UnitWriter:
    """Writes one cell into `parts`.

    sizes, weights (with constants and rates): by name. inputs, outputs: places of those that are
    values between cells; others become the file's own. starts: what states begin with, if not with
    what the cell declares. source: the equations by line.
    """

    def __init__(
        self,
        parts: UnitParts,
        schedule: Schedule,
        cell: CellDescription,
        sizes: Mapping[str, int],
        weights: Mapping[str, np.ndarray],
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        starts: Mapping[str, np.ndarray] | None = None,
        source: Mapping[int, str] | None = None,
    ) -> None:
        self.parts, self.prefix, self.block = parts, parts.prefix, parts.block
        self.schedule, self.sizes, self.source = schedule, sizes, source or {}
        self.inputs, self.outputs = inputs or {}, outputs or {}
        declared = {s.name: weights[s.default] for s in cell.states if s.default is not None}
        self.starts = {**declared, **(starts or {})}
        self.functions = parts.functions
        self.program: Program = schedule.program
        self.leaves = {
            op.result: op for op in self.program.ops() if OPS[op.opcode].kind is Kind.LEAF
        }
        alone = [
            s for k in schedule.kernels if k.kind == "weights" for v in k.levels for s in v.stages
        ]
        more = [op for s in alone for op in ops_of(s)]
        self.constants = constants_of(self.program, weights, sizes, more)
        self.made = {buffer: value for s in alone for buffer, value in made_by(s)}
        begin = {
            p.value.name: np.zeros([s.evaluate(sizes) for s in p.value.type.shape])[None]
            for p in self.program.params
            if p.role == "state"
        }
        begin |= {n: np.asarray(a)[None] for n, a in self.starts.items() if n in begin}
        # What states begin with, which may be made of what others do.
        self.initials = constants_of(self.program, {**weights, **begin}, sizes, more)
        self.kept: set[Buffer] = set()
        self.places: dict[Buffer, str] = {}
        self.states: list[CArray] = []
        self.weights: dict[Buffer, CArray] = {}
        self.asked: set[Buffer] = set()

    def write(self) -> None:
        self._place_parameters()
        self._place_states()
        self._place_outputs()
        self._place_works()
        self.packing = self.parts.packing
        self.packing.constants = {
            b: a.values for b, a in self.weights.items() if a.values is not None
        }
        self.parts.kernels += [self._kernel(k) for k in self._running()]
        self.parts.weights += [a for b, a in self.weights.items() if b in self.asked]

    # ---- where everything is ---------------------------------------------------------------------

    def _shape(self, buffer: Buffer) -> tuple[int, ...]:
        return tuple(s.evaluate(self.sizes) for s in buffer.shape)

    def _place_parameters(self) -> None:
        for param in self.program.params:
            name = param.value.name
            view = self.schedule.places.get(param.value)
            buffer = view.buffer if view is not None else None
            if param.role in ("input", "context"):
                shape = tuple(s.evaluate(self.sizes) for s in param.value.type.shape)
                place = self.inputs.get(name, f"in_{name}")
                if name not in self.inputs:
                    own = CArray(name, shape, each_step=param.role == "input")
                    self.parts.inputs.append(own)
                if buffer is not None:
                    self.places[buffer] = place
            elif param.role in WEIGHTS and param.value in self.constants:
                if buffer is not None:
                    self._constant(buffer, self.constants[param.value])
            elif param.role != "state":
                raise Unsupported(f"a parameter of the kind {param.role}, {name},")

    def _constant(self, buffer: Buffer, values: np.ndarray) -> None:
        shape = self._shape(buffer)
        array = np.broadcast_to(values, (1, 1, *shape)).reshape(shape)
        self.weights[buffer] = self.parts.constant(buffer.name, array)
        self.places[buffer] = self.weights[buffer].name

    def _place_states(self) -> None:
        for carry in self.schedule.carries:
            buffer, shape = carry.buffer, self._shape(carry.buffer)
            field = self.parts.fields.fresh_of(buffer.name, "")
            self.parts.fields.taken.add(f"{field}_next")
            if not carry.zero_start and carry.init not in self.initials:
                raise Unsupported(f"a state that begins with what inputs say, {carry.name},")
            start = None if carry.zero_start else self.initials[carry.init]
            if start is not None:
                start = np.broadcast_to(start, (1, 1, *shape)).reshape(shape)
                start = start if start.any() else None
            rows = 1
            if buffer.name in self.schedule.histories:
                self.kept.add(buffer)
                rows = self.block + 1
            self.places[buffer] = f"s->{field}"
            self.states.append(CArray(field, shape, start, rows=rows))
        self.parts.states += self.states

    def _running(self) -> list[Kernel]:
        """The kernels but those of weights alone, and those of what states begin with."""
        begins = {
            self.schedule.places[p.value].buffer
            for p in self.program.params
            if p.role == "state" and p.value in self.schedule.places
        }
        running, left_out = [], set()
        for kernel in self.schedule.kernels:
            stages = [s for level in kernel.levels for s in level.stages]
            read = {v.buffer for s in stages for v in views_read(s)}
            if kernel.kind == "weights":
                continue
            if kernel.kind != "scan" and read & begins:
                left_out |= {v.buffer for s in stages for v in views_written(s)}
                continue
            if read & left_out:
                raise Unsupported("a state whose beginning is read again")
            running.append(kernel)
        return running

    def _place_outputs(self) -> None:
        for result in self.program.results:
            if result.role.kind != "output":
                continue
            view = self.schedule.places.get(result.value)
            if view is None or view.buffer.storage != "result" or not view.is_whole:
                raise Unsupported(f"an output that is another array's, {result.name},")
            if result.name not in self.outputs:
                self.parts.outputs.append(CArray(result.name, self._shape(view.buffer)))
            self.places[view.buffer] = self.outputs.get(result.name, f"out_{result.name}")

    def _place_works(self) -> None:
        for buffer in self.schedule.buffers:
            if buffer in self.places:
                continue
            if buffer in self.made:
                self._constant(buffer, self.constants[self.made[buffer]])
                continue
            every = "T" in buffer.axes
            self.places[buffer] = self.parts.work(buffer.name, self._shape(buffer), every)

    # ---- functions -------------------------------------------------------------------------------

    def _kernel(self, kernel: Kernel) -> CKernel:
        carried = {c.buffer for c in self.schedule.carries}
        in_place = {b for b in carried if stays(kernel, b)}
        at = CAddresses(kernel, self.sizes, self.places, in_place, self.kept)
        at.words.taken |= {p for p in self.places.values() if p.isidentifier()}
        at.words.taken |= self.parts.ports
        turns = at.turns
        doc = {
            "scan": "A step after the other, in steps of the states.",
            "rows": "For all steps at once: nothing here waits for a state.",
        }[kernel.kind]
        made = CKernel(self.parts.named.fresh_of(kernel.name, ""), Code(doc))
        # What is of each step alone may be made for all of them before anything else is.
        apart = kernel.kind == "rows" and turns and all("T" in b.axes for b in written(kernel))
        for stage in (s for level in kernel.levels for s in level.stages):
            if isinstance(stage, LaneStage):
                cited, lanes = self._comments(stage.all_ops), self._lanes_of(at, stage)
                tall = of_all_steps(at, self.packing, stage, lanes) if apart else None
                if tall is None:
                    made.add(turns, cited + self._lanes(at, stage))
                else:
                    made.add(False, cited + tall)
            elif isinstance(stage, RowStage):
                cited = self._comments([stage.op])
                made.add(turns, cited + row_lines(at, self.prefix, stage, self.functions))
        if kernel.kind == "scan":
            names = {self.places[b].removeprefix("s->") for b in carried - in_place - self.kept}
            made.advances = [(s.name, s.elements) for s in self.states if s.name in names]
        self.asked |= at.asked
        return made

    def _comments(self, ops: Iterable[Op]) -> list[str]:
        numbers = sorted({op.span.line for op in ops if op.span is not None})
        return [Code(f"/* {c_comment(self.source[n])} */") for n in numbers if n in self.source]

    def _lanes_of(self, at: CAddresses, stage: LaneStage) -> int:
        return at.number(stage.shape[-1]) if stage.shape else 1

    def _lanes(self, at: CAddresses, stage: LaneStage) -> list[str]:
        *sizes, lanes = (at.number(s) for s in (stage.shape or (Size.of(1),)))
        outer = [Loop(f"o{i}", str(n)) for i, n in enumerate(sizes)]
        body: list[str] = []
        registers = {}
        for i, group in enumerate(stage.groups):
            sums = Sums(at, self.packing, stage, i, outer, lanes)
            lines, places = sums.lines()
            body += lines
            for acc, place in zip(group.accs, places, strict=True):
                name, _, more = place.partition(" + ")
                registers[acc.value] = f"{name}[{more + ' + j' if more else 'j'}]"
            if stage.tiled is not None and not sums.exact:
                body += self._tiles(at, stage, outer, places, lanes)
        if stage.tiled is None:
            body += self._statements(at, stage, outer, registers, lanes)
        for loop in reversed(outer):
            head = f"for (int {loop.var} = 0; {loop.var} < {loop.count}; ++{loop.var}) {{"
            body = [head, *(f"    {line}" for line in body), "}"]
        return body if outer else ["{", *(f"    {line}" for line in body), "}"]

    def _tiles(
        self, at: CAddresses, stage: LaneStage, outer: list[Loop], places: Sequence[str], lanes: int
    ) -> list[str]:
        """Sums that a loop starts from, to where it finds them."""
        buffer = stage.tiled
        assert buffer is not None
        lines = []
        for g, place in enumerate(places):
            target = self.places[buffer] + (f" + t * {at.elements(buffer)}" if buffer.axes else "")
            target += f" + {g * int(at.axis_stride(buffer, 0))}"
            for n, loop in enumerate(outer):
                target += f" + {loop.var} * {at.axis_stride(buffer, n + 1)}"
            lines.append(f"for (int j = 0; j < {lanes}; ++j) ({target})[j] = ({place})[j];")
        return lines

    def _statements(
        self,
        at: CAddresses,
        stage: LaneStage,
        outer: list[Loop],
        registers: dict,  # type: ignore[type-arg]
        lanes: int,
    ) -> list[str]:
        writer = CStatements(self.prefix, self.functions, at, stage, outer, registers, self.leaves)
        (loop,) = writer.run(split=False)
        lines = []
        for name, place in writer.row_lines:
            kind = "real" if name in writer.written else "const real"
            lines.append(f"{kind} *{name} = {place};")
        head = f"for (int j = 0; j < {lanes}; ++j) {{"
        return [*lines, head, *(f"    {line}" for line in loop.lines + writer.last), "}"]


def stays(kernel: Kernel, buffer: Buffer) -> bool:
    """Whether a state can be written where it is read: nobody reads what it was once it is
    written, but the same lane before."""
    stages = [s for level in kernel.levels for s in level.stages]
    reading, writing = [], []
    for n, stage in enumerate(stages):
        if any(v.buffer is buffer and v.slot == "in" for v in views_read(stage)):
            reading.append(n)
        if any(v.buffer is buffer and v.slot == "out" for v in views_written(stage)):
            writing.append(n)
    if not reading or not writing or reading[-1] < writing[0]:
        return True
    (*_, stage) = stages[: writing[0] + 1]
    if reading[-1] > writing[0] or not isinstance(stage, LaneStage):
        return False
    lanes = [v for v in stage.reads.values() if v.buffer is buffer and v.slot == "in"]
    return len(stage.shape) < 2 and all(v.is_whole for v in lanes)


def views_written(stage: Stage) -> list[View]:
    if isinstance(stage, LaneStage):
        return [s.view for s in stage.stores]
    copied = [t for _, t in stage.copies] if isinstance(stage, RowStage) else []
    return [stage.target, *copied]


def ops_of(stage: Stage) -> list[Op]:
    return stage.all_ops if isinstance(stage, LaneStage) else [stage.op]


def made_by(stage: Stage) -> list[tuple[Buffer, Value]]:
    """Whole buffers that a stage writes, and the values in them."""
    if isinstance(stage, LaneStage):
        return [(s.view.buffer, s.value) for s in stage.stores if s.is_whole]
    return [(stage.target.buffer, stage.op.result)] if stage.target.is_whole else []
