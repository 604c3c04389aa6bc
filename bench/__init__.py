"""The benchmark harness: every contender in a process of its own, timed in turns.

    python -m bench SUITE [--quick] [--json FILE] [--plot FILE] [--markdown FILE]

Thread pools of different libraries spin against each other, so they never share a process; bursts
of calls go round the contenders, so a noisy minute falls on all of them; what is compared is
medians, beside the machine's own limits, and only after every contender's outputs agree with the
interpreter's.

Read: `suites` and `pairs` (what is compared, as data), `race` and `harness` (processes and turns),
`work` and `roofline` (limits), `bars`, then `result` and how it is shown.

Non-Goals: absolute times; judging a machine.
"""
