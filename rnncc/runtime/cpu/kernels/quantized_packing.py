"""Weights -> bfloat16 or int8, in the order narrow cores read them.

Both take what the row helper `pack` takes: see templates/cpu/rows.py.jinja for the description.

    pack_bfloat16   to the nearest value, to even between two; NaN stays NaN
    pack_int8       in groups of 64 k's, a lane's largest weight of a group becoming 127

A weight that isn't finite makes the sums of its lane NaN in int8.

Non-Goals: what a step of weights is (`weight_formats`).
"""

from rnncc.runtime.common.weight_formats import BFLOAT16, GROUP, INT8
from rnncc.runtime.cpu.intrinsics.kernel_namespace import host_vectors, word
from rnncc.runtime.jit.helper import helper
from rnncc.runtime.jit.kernel import core

SIZE = 4
v = host_vectors("float32")
WIDTH, VB = v.width, v.bytes


@helper
def lay_row(to, at, lanes, ls):
    """One vector of weights as a core would read it; lanes past the last unit are zero."""
    if ls == SIZE and lanes == WIDTH:
        v.store(to, v.load(at))
    else:
        v.store(to, v.splat(0.0))
        for lane in range(lanes):
            v.put(to + lane * SIZE, v.get(at + lane * ls))


@core
def pack_bfloat16(dst, desc, tile_from, tile_to, _4, _5, _6, _7):
    """[tile][k1][k2 / 2][unit block * gates + gate][lane], each two k2's."""
    k1, k2 = word(desc, 0), word(desc, 1)
    gates, blocks, units = word(desc, 2), word(desc, 3), word(desc, 4)
    row = gates * blocks * VB
    pairs = (k2 + 1) >> 1
    for tile in range(tile_from, tile_to):
        for u in range(blocks):
            unit = (tile * blocks + u) * WIDTH
            lanes = max(min(units - unit, WIDTH), 0)
            for g in range(gates):
                gate = desc + (5 + 4 * g) * 8
                ks1, ks2, ls = word(gate, 1), word(gate, 2), word(gate, 3)
                src = word(gate, 0) + unit * ls
                to = dst + tile * k1 * pairs * row + (u * gates + g) * VB
                for i in range(k1):
                    at = src + i * ks1
                    for pair in range(pairs):
                        lay_row(to, at, lanes, ls)
                        low = v.load(to)
                        high = v.splat(0.0)
                        if 2 * pair + 1 < k2:
                            lay_row(to, at + ks2, lanes, ls)
                            high = v.load(to)
                        v.store_halves(to, low, high)
                        at += 2 * ks2
                        to += row


@core
def pack_int8(dst, desc, tile_from, tile_to, _4, _5, _6, _7):
    """[tile][k1][group]: a row of scales [unit block * gates + gate][lane], then rows of bytes."""
    k1, k2 = word(desc, 0), word(desc, 1)
    gates, blocks, units = word(desc, 2), word(desc, 3), word(desc, 4)
    row = gates * blocks * VB
    step = row + (row >> 2) * GROUP
    groups = (k2 + GROUP - 1) // GROUP
    for tile in range(tile_from, tile_to):
        for u in range(blocks):
            unit = (tile * blocks + u) * WIDTH
            lanes = max(min(units - unit, WIDTH), 0)
            for g in range(gates):
                gate = desc + (5 + 4 * g) * 8
                ks1, ks2, ls = word(gate, 1), word(gate, 2), word(gate, 3)
                src = word(gate, 0) + unit * ls
                place = u * gates + g
                begin = dst + tile * k1 * groups * step
                for i in range(k1):
                    for group in range(groups):
                        at = src + i * ks1 + group * GROUP * ks2
                        count = min(k2 - group * GROUP, GROUP)
                        scales = begin + place * VB  # and room for a row until they are known
                        largest = v.splat(0.0)
                        for k in range(count):
                            lay_row(scales, at + k * ks2, lanes, ls)
                            largest = v.maximum(largest, v.abs(v.load(scales)))
                        scale = largest / 127.0
                        to = begin + row + place * (VB >> 2)
                        for k in range(count):
                            lay_row(scales, at + k * ks2, lanes, ls)
                            v.store_bytes(to, v.load(scales) / scale)
                            to += row >> 2
                        v.store(scales, scale)
                        begin += step


PACKERS = {BFLOAT16.name: pack_bfloat16, INT8.name: pack_int8}  # others: the row helper `pack`
