"""A RowStage as C loops: sums over a row, and moves of its elements.

Non-Goals: draws, which nothing makes that only infers.
"""

from __future__ import annotations

from collections.abc import Sequence

from rnncc.emit.c.addresses import CAddresses
from rnncc.ir.program import Op
from rnncc.ir.sizes import Size
from rnncc.schedule.model import RowStage, View
from rnncc.schedule.region import part_of


class Unsupported(ValueError):
    """Something that has no C form, and the line of its equation."""

    def __init__(self, what: str, op: Op | None = None) -> None:
        where = f" (line {op.span.line})" if op is not None and op.span else ""
        super().__init__(f"{what}{where} has no C form")


def row_lines(at: CAddresses, prefix: str, stage: RowStage, used: set[str]) -> list[str]:
    match stage.op.opcode:
        case "sum" | "prod" | "max" | "min":
            return _reduce(at, prefix, stage, used)
        case "cumsum":
            return _cumsum(at, stage)
        case "uniform":
            raise Unsupported("a draw", stage.op)
        case "pad" | "strided_pad":
            return _pad(at, stage)
        case "strided_slice":
            return _strided(at, stage)
        case "concat":
            return _concat(at, stage)
        case _:
            return _copy(at, stage)


def _targets(stage: RowStage) -> list[View]:
    return [stage.target, *(t for s, t in stage.copies if s is stage.target)]


def element(at: CAddresses, view: View, indices: Sequence[str]) -> str:
    """One element of a view, as something to read or write."""
    index = "".join(at.axis_term(view, axis, i) for axis, i in enumerate(indices) if i != "0")
    pointer = at.pointer(view)
    index = index.removeprefix(" + ") or "0"
    return f"({pointer})[{index}]" if " " in pointer else f"{pointer}[{index}]"


def loops(at: CAddresses, shape: Sequence[Size], body: list[str]) -> tuple[list[str], list[str]]:
    """Nested loops over a shape around a body that names `{i0}`, `{i1}`...; and the variables."""
    names = [f"i{n}" if at.number(s) != 1 else "0" for n, s in enumerate(shape)]
    lines: list[str] = []
    depth = 0
    for name, size in zip(names, shape, strict=True):
        if name != "0":
            pad = "    " * depth
            lines.append(f"{pad}for (int {name} = 0; {name} < {at.size(size)}; ++{name}) {{")
            depth += 1
    lines += [f"{'    ' * depth}{line}" for line in body]
    lines += [f"{'    ' * (n - 1)}}}" for n in range(depth, 0, -1)]
    return lines, names


def _names(at: CAddresses, shape: Sequence[Size]) -> list[str]:
    return loops(at, shape, [])[1]


def _reduce(at: CAddresses, prefix: str, stage: RowStage, used: set[str]) -> list[str]:
    assert stage.source is not None
    shape, axis = stage.op.operands[0].type.shape, stage.op.attrs["axis"]
    kept = [s for i, s in enumerate(shape) if i != axis]
    names = _names(at, kept)
    read = [*names]
    read.insert(axis, "k")
    first = [*names]
    first.insert(axis, "0")
    kind, source = stage.op.opcode, element(at, stage.source, read)
    begin = {"sum": "0", "prod": "1"}.get(kind) or element(at, stage.source, first)
    more = {"sum": f"total + {source}", "prod": f"total * {source}"}.get(kind)
    if more is None:
        function = {"max": "maximum", "min": "minimum"}[kind]
        used.add(function)
        more = f"{prefix}_{function}(total, {source})"
    body = [f"real total = {begin};"]
    body += [f"for (int k = 0; k < {at.size(shape[axis])}; ++k)", f"    total = {more};"]
    body += [f"{element(at, t, names)} = total;" for t in _targets(stage)]
    return ["{", *(f"    {b}" for b in body), "}"] if not names else loops(at, kept, body)[0]


def _cumsum(at: CAddresses, stage: RowStage) -> list[str]:
    assert stage.source is not None
    shape = stage.op.operands[0].type.shape
    names = [*_names(at, shape[:-1]), "k"]
    n = at.size(shape[-1])
    way = (
        f"int k = {n} - 1; k >= 0; --k" if stage.op.attrs["reverse"] else f"int k = 0; k < {n}; ++k"
    )
    body = [
        "real total = 0;",
        f"for ({way}) {{",
        f"    total += {element(at, stage.source, names)};",
    ]
    body += [f"    {element(at, t, names)} = total;" for t in _targets(stage)] + ["}"]
    lines = loops(at, shape[:-1], body)[0]
    return ["{", *(f"    {b}" for b in lines), "}"]


def _moved(at: CAddresses, shape: Sequence[Size], stage: RowStage, source: str) -> list[str]:
    names = _names(at, shape)
    body = [f"{element(at, t, names)} = {source};" for t in _targets(stage)]
    return loops(at, shape, body)[0]


def _copy(at: CAddresses, stage: RowStage) -> list[str]:
    """The same elements in the same order, in rows of another shape perhaps."""
    assert stage.source is not None
    old, new = stage.op.operands[0].type.shape, stage.op.result.type.shape
    if old == new:
        return _moved(at, new, stage, element(at, stage.source, _names(at, new)))
    read: list[str] = []
    names = _names(at, new)
    flat = "0"
    for name, size in zip(names, new, strict=True):
        flat = name if flat == "0" else f"({flat}) * {at.size(size)} + {name}"
    lines = [f"int left = {flat};"]
    for n, size in reversed([*enumerate(old)]):
        lines.append(f"const int k{n} = left % {at.size(size)};")
        lines.append(f"left /= {at.size(size)};")
        read.insert(0, f"k{n}")
    body = [*lines, "(void)left;"]
    body += [
        f"{element(at, t, names)} = {element(at, stage.source, read)};" for t in _targets(stage)
    ]
    return ["{", *(f"    {b}" for b in loops(at, new, body)[0]), "}"]


def _strided(at: CAddresses, stage: RowStage) -> list[str]:
    source, attrs = stage.copies[0][0], stage.op.attrs
    shape = stage.op.result.type.shape
    read = _names(at, shape)
    if read[attrs["axis"]] != "0":
        read[attrs["axis"]] = f"({read[attrs['axis']]} * ({attrs['step']}))"
    return _moved(at, shape, stage, element(at, source, read))


def _concat(at: CAddresses, stage: RowStage) -> list[str]:
    start, axis = Size.of(0), stage.op.attrs["axis"]
    sources = [s for s, _ in stage.copies if s is not stage.target]
    lines: list[str] = []
    for operand, source in zip(stage.op.operands, sources, strict=True):
        shape = operand.type.shape
        names = _names(at, shape)
        body = [
            f"{element(at, part_of(t, axis, start), names)} = {element(at, source, names)};"
            for t in _targets(stage)
        ]
        lines += loops(at, shape, body)[0]
        start = start + shape[axis]
    return lines


def _pad(at: CAddresses, stage: RowStage) -> list[str]:
    """Zeros, but for what is moved into their midst."""
    source = next(s for s, _ in stage.copies if s is not stage.target)
    (operand,) = stage.op.operands
    axis, shape = stage.op.attrs["axis"], stage.op.result.type.shape
    names = _names(at, shape)
    lines = loops(at, shape, [f"{element(at, t, names)} = 0;" for t in _targets(stage)])[0]
    inside = _names(at, operand.type.shape)
    places = [*inside]
    step = stage.op.attrs.get("step", 1)
    places[axis] = f"({inside[axis]} * ({step}) + {at.size(stage.op.attrs['start'])})"
    body = [f"{element(at, t, places)} = {element(at, source, inside)};" for t in _targets(stage)]
    return lines + loops(at, operand.type.shape, body)[0]
