"""Every word of equations, by the class name of Keras's operation.

Non-Goals: what they mean (`elementwise`, `sums`, `layouts`).
"""

from rnncc.keras.python import elementwise, layouts, sums  # noqa: F401  (they fill WORDS)
from rnncc.keras.python.values import WORDS

__all__ = ["WORDS"]
