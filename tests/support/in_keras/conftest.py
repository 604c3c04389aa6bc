"""Importing these files chooses a backend for the process: whoever names one may."""

from __future__ import annotations

import os

collect_ignore_glob = [] if "KERAS_BACKEND" in os.environ else ["*.py"]
