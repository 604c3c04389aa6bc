"""Importing these files chooses a backend for the process: whoever names one may."""

from __future__ import annotations

import pytest


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if any("in_keras" in argument for argument in config.args) else True
