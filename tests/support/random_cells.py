"""Random small cells as text: pointwise graphs over states and inputs, products, splits, sums.

Non-Goals: cells that make sense; values that explode (what a state keeps is squashed).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

# Shapes by a letter each: features, units, scalar, units x units.
SHAPES = {"f": "[features]", "u": "[units]", "s": "", "m": "[units, units]"}
UNARY = (
    "tanh({0})",
    "sigmoid({0})",
    "-{0}",
    "abs({0})",
    "sin({0})",
    "cos({0})",
    "exp(-abs({0}))",
    "sqrt(1 + {0} * {0})",
    "log(1 + abs({0}))",
    "relu({0})",
    "softplus({0})",
    "erf({0})",
    "{0} / (1 + abs({0}))",
    "hard_sigmoid({0})",
    "gelu({0})",
    "0.5 * {0}",
    "{0} ** 2",
    "arctan({0})",
    "arcsinh({0})",
    "log2(1 + abs({0}))",
    "surrogate(sin({0}), cos({0}))",
    "{0} % 3",
    "arctan2({0}, 2)",
    "cosh(tanh({0}))",
)
BINARY = (
    "{0} + {1}",
    "{0} - {1}",
    "{0} * {1}",
    "maximum({0}, {1})",
    "minimum({0}, {1})",
    "where({0} > {1}, {0}, 0.5 * {1})",
    "{0} / (2 + abs({1}))",
)
REDUCE = ("sum({0})", "mean({0})", "max({0})", "min({0})", "norm({0})", "{0}[0]", "{0}[-1]")
WHOLE = (
    "flip({0})",
    "{0}[::-1]",
    "concat({0}, {0})[::2]",
    "softmax({0})",
    "layer_norm({0})",
    "rms_norm({0})",
    "cumsum({0})",
    "tanh(cumsum({0}))",
)


@dataclass
class Draft:
    rng: random.Random
    pool: list[tuple[str, str]] = field(default_factory=list)  # (expression, shape)
    unread: dict[str, str] = field(default_factory=dict)  # temporaries nobody reads yet
    weights: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def pick(self, shapes: str = "fus") -> tuple[str, str]:
        """A value of one of these shapes; what nobody reads yet, more often than not."""
        fresh = [(n, s) for n, s in self.unread.items() if s in shapes]
        known = fresh if fresh and self.rng.random() < 0.6 else self.pool
        found = [(n, s) for n, s in known if s in shapes]
        name, shape = self.rng.choice(found)
        self.unread.pop(name, None)
        return name, shape

    def weight(self, *dims: str) -> str:
        name = f"W{len(self.weights)}"
        shape = f"[{', '.join(dims)}]" if dims else ""
        self.weights.append(f"{name}: weight{shape} = glorot_uniform")
        return name

    def name(self, expression: str, shape: str) -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        self.pool.append((name, shape))
        self.unread[name] = shape
        return name

    def grow(self) -> None:
        """One more equation."""
        kinds = (
            ["unary"] * 3
            + ["binary"] * 4
            + ["product"] * 3
            + [
                "gates",
                "reduce",
                "whole",
                "scalars",
                "weight",
                "concat",
                "memory",
                "read",
            ]
        )
        match self.rng.choice(kinds):
            case "unary":
                v, s = self.pick("fusm")
                self.name(self.rng.choice(UNARY).format(v), s)
            case "binary":
                v, s = self.pick("fusm")
                w, _ = self.pick(s)
                self.name(self.rng.choice(BINARY).format(v, w), s)
            case "scalars":
                (v, s), (w, _) = self.pick("fum"), self.pick("s")
                self.name(f"{v} * {w}" if self.rng.random() < 0.5 else f"{w} - {v}", s)
            case "weight":
                v, s = self.pick("us")
                w = self.weight(*(["units"] if s == "u" else []))
                self.name(f"{w} * {v} + {self.weight(*(['units'] if s == 'u' else []))}", s)
            case "product":
                v, s = self.pick("fu")
                inner = {"f": "features", "u": "units"}[s]
                out = self.rng.choice(["units"] * 3 + ["features", ""])
                if s == "u" and out == "units" and self.rng.random() < 0.3:
                    self.name(f"{v} @ transpose({self.weight('units', 'units')})", "u")
                else:
                    w = self.weight(inner, *([out] if out else []))
                    self.name(f"{v} @ {w}", {"units": "u", "features": "f", "": "s"}[out])
            case "gates":
                v, s = self.pick("fu")
                count = self.rng.choice([2, 3, 4])
                w = self.weight({"f": "features", "u": "units"}[s], f"{count} * units")
                whole = f"{v} @ {w}"
                if self.rng.random() < 0.5:
                    whole += f" + {self.weight(f'{count} * units')}"
                names = [f"g{len(self.lines)}_{i}" for i in range(count)]
                self.lines.append(f"{', '.join(names)} = split({whole}, {count})")
                self.pool += [(n, "u") for n in names]
                self.unread |= dict.fromkeys(names, "u")
            case "reduce":
                v, _ = self.pick("fu")
                self.name(self.rng.choice(REDUCE).format(v), "s")
            case "whole":
                v, s = self.pick("fu")
                self.name(self.rng.choice(WHOLE).format(v), s)
            case "concat":
                (v, _), (w, _) = self.pick("u"), self.pick("u")
                first, second = f"p{len(self.lines)}", f"q{len(self.lines)}"
                whole = f"concat({v}, {w})"
                if self.rng.random() < 0.5:
                    self.lines.append(f"{first}, {second} = split({whole}, 2)")
                else:
                    self.lines.append(f"{first} = {whole}[:units]")
                    self.lines.append(f"{second} = {whole}[-units:]")
                self.pool += [(first, "u"), (second, "u")]
                self.unread |= {first: "u", second: "u"}
            case "memory":
                (v, _), (w, _) = self.pick("u"), self.pick("u")
                self.name(f"outer({v}, {w})", "m")
            case "read":
                if any(s == "m" for _, s in self.pool):
                    (v, _), (w, _) = self.pick("m"), self.pick("u")
                    self.name(f"{v} @ {w}" if self.rng.random() < 0.6 else f"{w} @ {v}", "u")


def random_cell(seed: int) -> str:
    """The text of a valid cell, the same for the same seed."""
    rng = random.Random(seed)
    draft = Draft(rng)
    states = {f"h{i}": rng.choice("uuusm" if i else "u") for i in range(rng.randint(1, 3))}
    draft.pool += [("x[t]", "f"), *((f"{n}[t-1]", s) for n, s in states.items())]
    draft.pool += [("sum(x[t])", "s")]
    if rng.random() < 0.3:
        draft.pool.append(("x[t-1]", "f"))
    if rng.random() < 0.3:
        draft.pool.append(("h0[t-2]", "u"))
    for _ in range(rng.randint(4, 12)):
        draft.grow()
    last: list[str] = []
    for name, shape in states.items():
        old = f"{name}[t-1]"
        fresh = [v for v, s in draft.pool if s == shape and "[" not in v]
        if not fresh and shape == "u":
            fresh = [draft.name(f"x[t] @ {draft.weight('features', 'units')}", "u")]
        value = rng.choice(fresh) if fresh else "sum(x[t])"
        draft.unread.pop(value, None)
        keep = rng.choice(("0.5", "0.9", f"sigmoid({value})"))
        last.append(f"{name}[t] = {keep} * {old} + 0.3 * tanh({value})")
        draft.pool.append((f"{name}[t]", shape))
    if not any("x[t]" in line for line in (*draft.lines, *last)):
        draft.name("mean(x[t])", "s")
    # What nobody reads yet is summed into an output, so that no equation is idle.
    loose = {"u": "{0}", "f": "mean({0})", "s": "{0}", "m": "sum({0}, axis=0)"}
    terms = [f"tanh({loose[s].format(v)})" for v, s in draft.unread.items()]
    last.append(f"y = h0[t] + {' + '.join(terms)}" if terms else "y = h0[t] * 2")
    returned = ["y", *(f"{n}[t]" for n in states if rng.random() < 0.3)]
    return "\n".join(
        [
            f'"""Random cell {seed}."""',
            f"cell: Random{seed}",
            "features: size",
            "units: size",
            "x: input[features]",
            *(f"{n}: state{SHAPES[s]}" for n, s in states.items()),
            *draft.weights,
            *draft.lines,
            *last,
            f"return {', '.join(returned)}",
            "",
        ]
    )
