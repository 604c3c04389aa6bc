"""torch.nn's own cells as .rnn files: their weights are laid out as torch's.

Non-Goals: modules (`stack`, `step_cells`).
"""

from __future__ import annotations

from pathlib import Path

from rnncc.compiler import compile as compile_cell
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.common.one_for_all import one_for_all


@one_for_all
def builtin_cell(name: str) -> type[Layer]:
    """lstm, projected_lstm, gru or rnn, compiled once in a process."""
    return compile_cell(Path(__file__).with_name(f"{name}.rnn"))
