"""What kernels call besides arithmetic: shares of rows, barriers between levels, sums of teams,
random keys.

Plain Python over the names of `names`; a target gives them meanings.

Non-Goals: arithmetic on lanes (`scalars`).
"""

from __future__ import annotations

from rnncc.runtime.cuda.kernels.kernel_namespace import (
    I,
    U,
    add_release,
    cuda,
    give_up,
    load_acquire,
    mix,
    v,
)

MOST_POLLS = 1 << 24  # ten seconds of a GPU: whoever is waited for is on the device, too


def share(n, index, count):
    """The part of `n` rows that is this one's of `count`: [lo, hi)."""
    return n * index // count, n * (index + 1) // count


def level_barrier(counter, waiting, generation):
    """Everyone in the group has written what others read next.

    waiting: the group's blocks; 1 where one block is the group, 0 where the launch ends here.
    The counter only grows: generation g is over when every block has come g times. A block's
    writes come before its arrival (release, and syncthreads before it), and after the wait
    (acquire, and syncthreads behind it) each of its threads sees those of the others. One who
    never comes ends the launch with an error.
    """
    if waiting > 1:
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            add_release(counter, 1)
            polls = 0
            while load_acquire(counter) < waiting * generation:
                polls += 1
                if polls == MOST_POLLS:
                    give_up()
    if waiting > 0:
        cuda.syncthreads()


def team_sum(place, team):
    """What the warps of a team have found, one after the other, in the block's own memory."""
    total = v.shared_load(place)
    for part in range(1, team):
        total = total + v.shared_load(place + part)
    return total


# ---- contractions in tiles (`gemm_tiles`) ------------------------------------------------------


def add_products(sums, row, column):
    """A thread's sums [4, 4] go on over the 16 k that are staged in shared memory."""
    for k in range(16):
        a0, a1, a2, a3 = v.shared_load4(k * 68 + row)
        w0, w1, w2, w3 = v.shared_load4((16 + k) * 68 + column)
        sums[0] = v.fma(a0, w0, sums[0])
        sums[1] = v.fma(a0, w1, sums[1])
        sums[2] = v.fma(a0, w2, sums[2])
        sums[3] = v.fma(a0, w3, sums[3])
        sums[4] = v.fma(a1, w0, sums[4])
        sums[5] = v.fma(a1, w1, sums[5])
        sums[6] = v.fma(a1, w2, sums[6])
        sums[7] = v.fma(a1, w3, sums[7])
        sums[8] = v.fma(a2, w0, sums[8])
        sums[9] = v.fma(a2, w1, sums[9])
        sums[10] = v.fma(a2, w2, sums[10])
        sums[11] = v.fma(a2, w3, sums[11])
        sums[12] = v.fma(a3, w0, sums[12])
        sums[13] = v.fma(a3, w1, sums[13])
        sums[14] = v.fma(a3, w2, sums[14])
        sums[15] = v.fma(a3, w3, sums[15])


def put_sum(place, total, begin, constant):
    """Writes a result: its sum, on top of nothing (begin 0), a constant (1), what is there (2)."""
    if begin == 1:
        total = total + v.load(constant)
    if begin == 2:
        total = total + v.load(place)
    v.store(place, total)


# ---- random bits (`ir.random` says which) ----------------------------------------------------

WORD = 0xFFFFFFFF


def mix(x):  # type: ignore[no-redef]  # noqa: F811
    """Wellons's lowbias32 on the low half of 64 bits."""
    x = x ^ (x >> U(16))
    x = (x * U(0x7FEB352D)) & U(WORD)
    x = x ^ (x >> U(15))
    x = (x * U(0x846CA68B)) & U(WORD)
    return x ^ (x >> U(16))


def row_key(seed, site, row, step):
    """The random key of one row at one step of one site."""
    key = mix(mix(U(seed) & U(WORD)) ^ (U(seed) >> U(32)))
    key = mix((key + U(site)) & U(WORD))
    key = mix((key + U(row)) & U(WORD))
    return mix((key + U(step)) & U(WORD))


def uniform(key, lane):
    """In [0, 1), with 24 random bits: exact in either precision."""
    return v.from_bits(I(mix((key + U(lane)) & U(WORD)) >> U(8)))
