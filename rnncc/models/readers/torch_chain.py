"""A torch state_dict -> a chain of parts, said in words or guessed from names and shapes.

    "embedding@emb lstm(40, 256, 3) linear relu linear@head"

A word is a layer: its kind, sizes if one likes to have them checked, and behind @ the name that
its tensors begin with; without one it takes the next group of tensors of its kind. What has no
tensors (relu, softmax, dropout, last) stands where it acts. Sequences are [batch, time, features].

Non-Goals: the format of the file (`files`); modules that convolve or attend.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

from rnncc.files import FileError
from rnncc.models.readers.building import Chain, LoadWarning
from rnncc.models.readers.torch_groups import GATES, TensorGroup, recurrent_weights
from rnncc.models.readers.torch_layers import KINDS, fits
from rnncc.models.readers.torch_words import LayerWord, words_of


def chain_of(
    text: str,
    groups: Sequence[TensorGroup],
    where: str,
    dtype: str,
    ignored: Callable[[str], bool] = lambda _: False,
) -> tuple[Chain, str]:
    """The chain that was said, and its text with all that was found out.

    ignored: whether a group that no word takes, by name, may be left. FileError for tensors that
    are missing, that don't fit, or that are left; ValueError for a text that says none.
    """
    words = words_of(text)
    asked = {w.name for w in words}
    left = [g for g in groups if g.name in asked or not ignored(g.name)]
    for word in words:
        if word.kind not in KINDS:
            raise ValueError(f"layers: {word.kind} isn't known; there are {', '.join(KINDS)}")
    named = {i: _taken(w, left, where) for i, w in enumerate(words) if w.name is not None}
    pairs = [(w, named[i] if i in named else _taken(w, left, where)) for i, w in enumerate(words)]
    if left:
        names = ", ".join(g.name or ", ".join(g.tensors) for g in left[:10])
        raise FileError(
            where, f"no layer takes {names}: name one with @, or ignore=[...] what isn't needed"
        )
    first = next((g for word, g in pairs if g is not None), None)
    if first is None:
        raise ValueError("layers: none has weights")
    said = next(w for w, g in pairs if g is first)
    chain = Chain(where, _reads(said.kind, first, where), dtype, said.kind == "embedding")
    shown = [KINDS[word.kind].add(chain, word, group) for word, group in pairs]
    return chain, " ".join(shown)


def _taken(word: LayerWord, left: list[TensorGroup], where: str) -> TensorGroup | None:
    """The group that a word is about, off those that are left."""
    if KINDS[word.kind].fits is None:
        if word.name is not None:
            raise ValueError(f"layers: {word} has no tensors, so no name")
        return None
    for group in left:
        if group.name == word.name if word.name is not None else fits(word.kind, group):
            left.remove(group)
            if not fits(word.kind, group):
                shapes = {n: list(a.shape) for n, a in group.tensors.items()}
                raise FileError(group.label(where), f"it is no {word.kind}: {shapes!s:.300}")
            return group
    held = ", ".join(g.name or "(no name)" for g in left[:20]) or "none"
    raise FileError(where, f"no tensors for {word}; left are {held}")


def _reads(kind: str, group: TensorGroup, where: str) -> int:
    """How many features."""
    if kind in GATES:
        return int(recurrent_weights(group, where)[0][0]["weight_ih"].shape[1])
    weight = group.tensors["weight"]
    return int(weight.shape[-1])


def guessed(groups: Sequence[TensorGroup], where: str, keeps_order: bool) -> str:
    """The one chain that names and shapes allow; what it was is said in a warning.

    keeps_order: whether the file has modules in the order in which they were made. FileError where
    there is none, or more than one.
    """
    candidates = {g.name: _candidates(g, where) for g in groups}
    if len(groups) > 12:
        raise FileError(where, f"{len(groups)} groups of tensors: say which with layers=")
    found: list[tuple[tuple[str, TensorGroup], ...]] = []
    _extended((), list(groups), candidates, found, where, None)
    in_order = [c for c in found if [g.name for _, g in c] == [g.name for g in groups]]
    chosen = in_order if keeps_order and in_order else found
    if len(chosen) != 1:
        held = ", ".join(
            f"{g.name or '(no name)'}: {' or '.join(candidates[g.name])}" for g in groups
        )
        many = "no chain fits" if not chosen else f"{len(chosen)} chains fit"
        raise FileError(where, f'{many} ({held}): say it, layers="lstm@name linear@name"')
    return " ".join(f"{kind}@{group.name}" if group.name else kind for kind, group in chosen[0])


def warn_of_guess(where: str, text: str) -> None:
    """In one line: what was guessed, and what can't be."""
    warnings.warn(
        f'{where}: guessed layers="{text}" from names and shapes; what has no weights (functions, '
        "dropout, which step is taken) isn't in the file: say layers= to be sure",
        LoadWarning,
        stacklevel=4,
    )


def _candidates(group: TensorGroup, where: str) -> list[str]:
    kinds = [n for n in (*GATES, "linear", "embedding", "batch_norm") if fits(n, group)]
    if not kinds:
        shapes = {n: list(a.shape) for n, a in group.tensors.items()}
        raise FileError(
            group.label(where), f'no layer is guessed of {shapes!s:.300}: say layers="..."'
        )
    return kinds


def _extended(
    begun: tuple[tuple[str, TensorGroup], ...],
    left: list[TensorGroup],
    candidates: Mapping[str, list[str]],
    found: list[tuple[tuple[str, TensorGroup], ...]],
    where: str,
    features: int | None,
) -> None:
    """All chains that go on from here, two at most."""
    if len(found) > 8:
        return
    if not left:
        found.append(begun)
    for group in left:
        for kind in candidates[group.name]:
            if kind == "embedding" and begun:
                continue
            reads = None if kind == "embedding" else _reads(kind, group, where)
            if features is not None and reads != features:
                continue
            rest = [g for g in left if g is not group]
            after = _makes(kind, group, where)
            _extended((*begun, (kind, group)), rest, candidates, found, where, after)


def _makes(kind: str, group: TensorGroup, where: str) -> int:
    if kind in GATES:
        layers = recurrent_weights(group, where)
        return int(layers[-1][0]["weight_hh"].shape[1]) * len(layers[-1])
    weight = group.tensors["weight"]
    return int(weight.shape[0] if kind == "linear" else weight.shape[-1])
