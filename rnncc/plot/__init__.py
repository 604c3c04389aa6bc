"""rnncc.plot: what gates do, where they are saturated, how far back gradients reach; a cell's step.

    rnncc.plot.gates(layer, x).savefig("gates.png")

Each function returns a figure of matplotlib (`rnncc[plot]`) that belongs to nobody else: nothing
global is read or changed.
"""

from rnncc.plot.drawing import drawing
from rnncc.plot.flow import gradient_flow
from rnncc.plot.gates import gates, saturation

__all__ = ["drawing", "gates", "gradient_flow", "saturation"]
