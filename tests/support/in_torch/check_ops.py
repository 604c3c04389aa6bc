"""torch's own check of a registered op (`opcheck`), on ours."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import rnncc.torch as ours  # noqa: E402


def test_the_ops_as_torch_wants_them() -> None:
    module = ours.Recurrent("gru", units=5, input_size=3)
    tensors = [torch.randn(2, 6, 3), *module.parameters()]
    arguments = (module._recurrence.key, tensors, None, False, False, False)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.rnncc.forward, (*arguments, False), test_utils=tests)
