"""The numbers that are built into a loop whose cores are written out: how wide its tiles are.

    STAGE_BLOCKS    vectors of lanes that a tile of the stage has, for each gate
    STAGE_VECTORS   vectors of a group's tile, of all its gates; STAGE_G1_VECTORS of one of several

Such a loop is compiled for each width of its tiles; sizes are arguments as ever.

Non-Goals: the text of such loops (`emit.cpu`); how wide tiles are (`cpu.planning.tiling`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def group_name(stage: str, i: int, groups: int) -> str:
    """What words about a stage's group begin with."""
    return stage if groups == 1 else f"{stage}_g{i}"


def vectors_name(group: str) -> str:
    """Of the number of a group's vectors."""
    return f"{group}_vectors".upper()


def blocks_name(stage: str) -> str:
    """Of the number of a stage's vectors a gate."""
    return f"{stage}_blocks".upper()


def numbers_of(stage: str, gates: Sequence[int], blocks: int) -> Iterator[tuple[str, int]]:
    """Of a stage whose groups have so many gates: all its names and numbers."""
    yield blocks_name(stage), blocks
    for i, count in enumerate(gates):
        yield vectors_name(group_name(stage, i, len(gates))), count * blocks
