"""One kernel run as a call runs it: a plan of one launch, on this machine's threads."""

from __future__ import annotations

import numpy as np

from rnncc.runtime.common.memory_pool import ALIGNMENT, aligned
from rnncc.runtime.cpu.kernels.barrier import sync_words
from rnncc.runtime.cpu.kernels.executor import ArgumentBlock, Launch, Workspace, plan_of
from rnncc.runtime.cpu.planning.target import run_plan


def launch(kernel: int, words: np.ndarray, parts: int = 1) -> np.ndarray:
    """The kernel at this address on a block of these words (int64); what it leaves in them."""
    sync = -(-sync_words(parts) * 8 // ALIGNMENT) * ALIGNMENT
    workspace = Workspace(0, sync, sync, sync + ALIGNMENT)
    plan = plan_of([Launch(kernel, ArgumentBlock(words, []), parts)], workspace, 0, [], {})
    memory = aligned((plan.workspace_bytes // 8,), np.int64, zero=True)
    run_plan(plan, [memory.ctypes.data])
    return memory[workspace.size // 8 :]
