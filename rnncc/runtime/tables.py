"""The tables a generated module imports; they are the schedule's, and documented there."""

from rnncc.schedule.tables import (
    Buffer,
    Carry,
    Copy,
    Core,
    Direction,
    Grad,
    Kernel,
    Operand,
    Pack,
    Place,
    Source,
    Stage,
    Summed,
)

__all__ = [
    "Buffer",
    "Carry",
    "Copy",
    "Core",
    "Direction",
    "Grad",
    "Kernel",
    "Operand",
    "Pack",
    "Place",
    "Source",
    "Stage",
    "Summed",
]
