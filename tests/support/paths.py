"""Where this checkout is, and the cells that only tests have."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CELLS = ROOT / "tests" / "cells"
