"""The functions equations may call and the initializers weights may name: their signatures.

What a function means is `lowering.functions`; a test holds the two tables together.

Non-Goals: meanings.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signature:
    """`required` arguments, then `optional` ones; `variadic`: any number, at least one."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    variadic: bool = False

    def __str__(self) -> str:
        parts = [*self.required, *(["..."] if self.variadic else [])]
        return f"({', '.join([*parts, *(f'{o}=' for o in self.optional)])})"


def _signature(text: str) -> Signature:
    required, _, optional = text.partition("/")
    names = required.split()
    return Signature(tuple(n for n in names if n != "..."), tuple(optional.split()), "..." in names)


_POINTWISE = (
    "linear relu6 selu silu swish mish softplus softsign sigmoid tanh hard_sigmoid hard_silu "
    "hard_swish hard_tanh exponential log_sigmoid tanh_shrink exp log log1p expm1 sqrt rsqrt "
    "abs sign sin cos erf square stop_gradient floor ceil round trunc exp2 log2 log10 erfc tan "
    "sinh cosh arcsin arccos arctan arcsinh arccosh arctanh"
)

SIGNATURES: dict[str, Signature] = {
    **{name: Signature(("v",)) for name in _POINTWISE.split()},
    **{
        name: _signature(text)
        for name, text in {
            "relu": "v / negative_slope max_value threshold",
            "leaky_relu": "v / negative_slope",
            "elu": "v / alpha",
            "celu": "v / alpha",
            "gelu": "v / approximate",
            "hard_shrink": "v / threshold",
            "soft_shrink": "v / threshold",
            "squareplus": "v / b",
            "threshold": "v threshold default",
            "softmax": "v / axis",
            "log_softmax": "v / axis",
            "cumax": "v / axis",
            "layer_norm": "v / eps axis",
            "rms_norm": "v / eps axis",
            "split": "v n / axis",
            "concat": "... / axis",
            "stack": "... / axis",
            "flip": "v / axis",
            "roll": "v shift / axis",
            "reshape": "v shape",
            "broadcast": "v shape",
            "transpose": "v / axes",
            "sum": "v / axis",
            "mean": "v / axis",
            "max": "v / axis",
            "min": "v / axis",
            "prod": "v / axis",
            "norm": "v / axis",
            "any": "v / axis",
            "all": "v / axis",
            "maximum": "a b",
            "minimum": "a b",
            "arctan2": "y x",
            "clip": "v low high",
            "mod": "a b",
            "floor_divide": "a b",
            "int": "v",
            "float": "v",
            "bool": "v",
            "logical_not": "v",
            "heaviside": "v / at_zero",
            "surrogate": "forward backward / of",
            "cumsum": "v / axis",
            "outer": "a b",
            "einsum": "subscripts ...",
            "where": "condition a b",
            "drop": "v rate / per",
            "zoneout": "new old rate / per",
        }.items()
    },
}

_INITIALIZERS = (
    "zeros ones constant normal uniform random_normal random_uniform truncated_normal "
    "variance_scaling "
    "glorot_normal glorot_uniform he_normal he_uniform lecun_normal lecun_uniform orthogonal "
    "identity unit_forget_bias"
)
INITIALIZERS = frozenset(_INITIALIZERS.split())

# Keywords and attributes of every layer, and the parameters lowering adds: never a declaration.
_RESERVED = (
    "mask lengths training initial_state return_sequences return_state go_backwards stateful "
    "time_major checkpoint_every precision dtype name seed valid zero_output_for_mask weights "
    "trainable consume wrt inputs states"
)
RESERVED = frozenset(_RESERVED.split())
