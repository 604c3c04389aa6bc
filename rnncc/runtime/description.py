"""The nouns of `rnncc.schedule.description`, under the one room generated modules import."""

from rnncc.schedule.description import (
    Array,
    Cell,
    Constraint,
    OptionValue,
    Rate,
    SizeDecl,
    Variant,
    covering,
    literal,
    names_of,
    variant_of,
    variants_of,
)

__all__ = [
    "Array",
    "Cell",
    "Constraint",
    "OptionValue",
    "Rate",
    "SizeDecl",
    "Variant",
    "covering",
    "literal",
    "names_of",
    "variant_of",
    "variants_of",
]
