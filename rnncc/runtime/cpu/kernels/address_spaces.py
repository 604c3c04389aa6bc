"""The groups of addresses a direction's plans are written over, in the order a call brings them.

    workspace | saved | packed | seed | first step | given … | residuals … | weights … | results …

saved: what the pullback keeps. packed: what depends on weights alone. given: arrays of the call.
"""

WORKSPACE, SAVED, PACKED, SEED, FIRST_STEP = range(5)
GIVEN = 5  # the first of the arrays
