"""A `.rnn` text at its defaults, as papers write a cell: options chosen, functions named, nothing
drawn, and without the equations that nothing reads then.

Non-Goals: what is computed (`rnncc.lowering`): this is for the eye.
"""

from __future__ import annotations

import ast

Names = dict[str, ast.expr]


def at_defaults(text: str) -> list[ast.stmt]:
    """Its equations and its return."""
    tree = ast.parse(text)
    known: Names = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            kind = ast.unparse(node.annotation)
            if kind == "option" and isinstance(node.value, ast.Name):
                known[node.target.id] = ast.Constant(False)  # whether there is that rate
            elif kind == "option" or (kind == "function" and isinstance(node.value, ast.Name)):
                known[node.target.id] = node.value
    body = [Folded(known).visit(n) for n in tree.body if isinstance(n, ast.Assign | ast.Return)]
    return read(body)


def read(body: list[ast.stmt]) -> list[ast.stmt]:
    """Those that something reads, or that set a state."""
    while True:
        wanted = {
            n.id
            for node in body
            for n in ast.walk(node)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
        }
        kept = [
            node
            for node in body
            if not isinstance(node, ast.Assign)
            or any(n.id in wanted for n in ast.walk(node.targets[0]) if isinstance(n, ast.Name))
        ]
        if len(kept) == len(body):
            return kept
        body = kept


class Folded(ast.NodeTransformer):
    """Choices by what is known are made, `drop` and `zoneout` left out, zeros not added."""

    def __init__(self, known: Names) -> None:
        self.known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.known.get(node.id, node) if isinstance(node.ctx, ast.Load) else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        test = self.visit(node.test)
        return self.visit(node.body if chosen(test) else node.orelse)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return node.args[0] if ast.unparse(node.func) in ("drop", "zoneout") else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        nothing = isinstance(node.right, ast.Constant) and node.right.value == 0
        return node.left if nothing and isinstance(node.op, ast.Add) else node


def chosen(test: ast.expr) -> bool:
    """Of literals alone: a cell of ours whose options say more is shown wrong, and fails here."""
    match test:
        case ast.Constant(value=value):
            return bool(value)
        case ast.UnaryOp(op=ast.Not(), operand=value):
            return not chosen(value)
        case ast.Compare(left=ast.Constant(value=a), ops=[op], comparators=[ast.Constant(value=b)]):
            return (a == b) == isinstance(op, ast.Eq)
        case ast.BoolOp(op=op, values=values):
            return (any if isinstance(op, ast.Or) else all)(map(chosen, values))
    raise ValueError(f"not known beforehand: {ast.unparse(test)}")
