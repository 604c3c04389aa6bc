"""The nodes of a graph -> recurrent ones alone, plain ones together, as many as can be.

A plain node belongs to the level that is the most recurrent nodes on a way to it: all of a level
are one graph, which runs before the recurrent nodes of that level.

Non-Goals: what the pieces compute (`operators`, `recurrent_node`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rnncc.models.onnx.opening import graphs_of
from rnncc.models.onnx.settings import OPERATORS

# What gives other values at every call is not computed beforehand.
RANDOM = frozenset(
    {
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        *("Multinomial", "Bernoulli", "Dropout"),
    }
)


@dataclass(slots=True)
class Piece:
    """nodes: one recurrent one, or plain ones in order."""

    nodes: list[Any] = field(default_factory=list)

    @property
    def is_recurrent(self) -> bool:
        return is_recurrent(self.nodes[0])


def is_recurrent(node: Any) -> bool:
    return node.op_type in OPERATORS and node.domain in ("", "ai.onnx")


def read_by(node: Any) -> list[str]:
    """Values that a node reads, those of its branches and loop bodies among them, each once."""
    names = dict.fromkeys(n for n in node.input if n)
    for graph in graphs_of(node):
        own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
        for inner in graph.node:
            names |= dict.fromkeys(n for n in read_by(inner) if n not in own)
            own |= set(inner.output)
        names |= dict.fromkeys(o.name for o in graph.output if o.name not in own)
    return list(names)


def needed(nodes: Sequence[Any], wanted: Iterable[str]) -> list[Any]:
    """The nodes that the wanted values depend on, in order."""
    names, kept = set(wanted), []
    for node in reversed(nodes):
        if names & set(filter(None, node.output)):
            kept.append(node)
            names |= set(read_by(node))
    return kept[::-1]


def pieces(nodes: Sequence[Any]) -> list[Piece]:
    """In the order they run."""
    level: dict[str, int] = {}  # of values
    plain: dict[int, Piece] = {}
    recurrent: dict[int, list[Piece]] = {}
    for node in nodes:
        at = max((level.get(n, 0) for n in read_by(node)), default=0)
        if is_recurrent(node):
            recurrent.setdefault(at, []).append(Piece([node]))
            at += 1
        else:
            plain.setdefault(at, Piece()).nodes.append(node)
        level |= dict.fromkeys(filter(None, node.output), at)
    found: list[Piece] = []
    for at in range(max([*plain, *recurrent], default=-1) + 1):
        found += [plain[at]] if at in plain else []
        found += recurrent.get(at, [])
    return found


def constants_of(nodes: Sequence[Any], known: Iterable[str]) -> set[str]:
    """Values that hold the same at every call: the known ones, and what is made of such alone."""
    fixed = set(known)
    for node in nodes:
        if is_recurrent(node) or _is_random(node):
            continue
        if all(n in fixed for n in read_by(node)):
            fixed |= set(filter(None, node.output))
    return fixed


def steady_of(nodes: Sequence[Any], fixed: set[str]) -> set[str]:
    """Values that depend on nothing but the shapes of the inputs, and those that are fixed."""
    steady = set(fixed)
    for node in nodes:
        if is_recurrent(node) or _is_random(node):
            continue
        if node.op_type in ("Shape", "Size") or all(n in steady for n in read_by(node)):
            steady |= set(filter(None, node.output))
    return steady


def _is_random(node: Any) -> bool:
    return node.op_type in RANDOM or any(
        _is_random(inner) for graph in graphs_of(node) for inner in graph.node
    )


def ends(piece: Piece, after: Mapping[str, int], index: int) -> tuple[list[str], list[str]]:
    """Values that a piece reads from outside, and those that are read behind it.

    after: the last piece that reads each value; outputs of the model: more than any index."""
    made = {n for node in piece.nodes for n in node.output if n}
    inputs = dict.fromkeys(n for node in piece.nodes for n in read_by(node) if n not in made)
    outputs = dict.fromkeys(
        n for node in piece.nodes for n in node.output if n and after.get(n, -1) > index
    )
    return list(inputs), list(outputs)
