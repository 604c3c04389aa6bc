"""rnncc.plot: what gates do, where they are saturated, and how far back gradients reach.

    rnncc.plot.gates(layer, x).savefig("gates.png")

Each function returns a figure of matplotlib (`rnncc[plot]`) that belongs to nobody else: nothing
global is read or changed.
"""

from rnncc.plot.flow import gradient_flow
from rnncc.plot.gates import gates, saturation

__all__ = ["gates", "gradient_flow", "saturation"]
