"""What the results of a program are to whoever runs it, and the names that go with that.

    output     a value of every step                        y
    state      the last value of a carry that callers see   final_h
    held       of one that they don't                       final_y
    residual   what the pullback reads                      z.0
    grad_…     the gradient of a parameter, by its role     d_W; callers know it as W's

Names are made here, of what they are about, and nobody takes one apart.
"""

from __future__ import annotations

from typing import NamedTuple

LAST = ("state", "held")  # kinds of last values of carries


def gradient_kind(role: str) -> str:
    """Of a parameter's gradient: a result's kind."""
    return f"grad_{role}"


def final_name(carry: str) -> str:
    """Of a carry's last value."""
    return f"final_{carry}"


def gradient_name(value: str) -> str:
    """Of what a pullback accumulates for a value: a parameter's is a result of its program."""
    return f"d_{value}"


def cotangent_name(result: str) -> str:
    """Of what is brought for a result: no argument of a cell's can be called so."""
    return f"d.{result}"


def handed_name(argument: str) -> str:
    """Of a cotangent that a pullback hands over to the pullback behind it: an output may have the
    argument's own name, whose cotangent is another."""
    return f"handed.{argument}"


class ResultRole(NamedTuple):
    """of: the carry, or the parameter, or else the result's own name."""

    kind: str
    of: str

    @property
    def is_gradient(self) -> bool:
        return self.kind not in ("output", *LAST, "residual")

    @property
    def name(self) -> str:
        """Among the results of its program."""
        return gradient_name(self.of) if self.is_gradient else self.asked_as

    @property
    def asked_as(self) -> str:
        """The name that callers ask for it by, and get it by."""
        return final_name(self.of) if self.kind in LAST else self.of
