"""All words of JAX's primitives, and why others can't be read.

Non-Goals: what they are (`pointwise`, `arrays`, `products`).
"""

from __future__ import annotations

from rnncc.jax.reading import arrays, pointwise, products  # noqa: F401  (they fill WORDS)
from rnncc.jax.reading.primitive_call import WORDS, Word
from rnncc.reading.graph import Unreadable

_LOOPS = "decides by numbers of the step how it goes on: take jnp.where"
_DRAWS = "draws random numbers: draw them before the scan and hand them over as xs"
_WHY = {
    "while": "loops as long as numbers of the step say: loops of a constant length can be read",
    "cond": _LOOPS,
    "switch": _LOOPS,
    "sort": "orders numbers, which equations can't",
    "top_k": "orders numbers, which equations can't",
    "argmax": "gives a place, which equations have no word for",
    "argmin": "gives a place, which equations have no word for",
    "pure_callback": "calls Python, which kernels can't",
    "io_callback": "calls Python, which kernels can't",
    "debug_callback": "calls Python, which kernels can't: print what the scan returns",
    "debug_print": "prints, which kernels can't: print what the scan returns",
    "rnncc_run": "is a scan by kernels: take jax.lax.scan within a step",
    "psum": "sums over devices, which kernels can't",
}


def word_of(name: str) -> Word:
    """Unreadable where there is none."""
    if name in WORDS:
        return WORDS[name]
    if name.startswith(("random_", "threefry", "rng_")):
        raise Unreadable(_DRAWS)
    if name.startswith("scatter"):
        raise Unreadable("writes to places, which equations can't: take jnp.where over an iota")
    raise Unreadable(_WHY.get(name, "is a primitive that equations have no word for"))
