"""What `--json` prints: one object on stdout, whatever happened. docs/cli.md lists its keys.

    {"command": "check", "ok": true, ...}
    {"command": "check", "ok": false, "errors": [{"code": "E301", "file": ..., "line": ...}, ...]}

Keys are added, never renamed and never of another type. Numbers that JSON can't say are null.

Non-Goals: what commands have to report.
"""

from __future__ import annotations

import json
import math
from typing import Any

from rnncc.frontend.diagnostics import Diagnostic, SpecError


def print_json(command: str, *, ok: bool, **fields: Any) -> None:
    """The object of a command, in its order, on stdout."""
    said = {"command": command, "ok": ok, **fields}
    print(json.dumps(_sayable(said), indent=2, ensure_ascii=True, allow_nan=False))


def print_errors(command: str, error: BaseException, message: str) -> None:
    """The same of what made the command end."""
    print_json(command, ok=False, errors=errors_of(error, message))


def errors_of(error: BaseException, message: str) -> list[dict[str, Any]]:
    """Each mistake of a cell by itself; anything else is one error without a place."""
    if isinstance(error, SpecError):
        return [located(d, error.filename) for d in error.diagnostics]
    file = getattr(error, "filename", None)
    kind = "file" if isinstance(error, OSError) or file else type(error).__name__
    codes = {"UsageError": "usage", "Misset": "environment", "Missing": "machine"}
    return [
        {
            "code": codes.get(kind, "file"),
            "file": None if file is None else str(file),
            "line": None,
            "column": None,
            "end_column": None,
            "message": message.removeprefix("rnncc: "),
            "notes": [],
            "help": "",
        }
    ]


def located(d: Diagnostic, file: str) -> dict[str, Any]:
    """Lines and columns count from 1, columns in characters; `end_column` is behind the last."""
    return {
        "code": d.code,
        "file": file,
        "line": d.span.line,
        "column": d.span.col,
        "end_column": d.span.end,
        "message": d.message,
        "notes": list(d.notes),
        "help": d.help,
    }


def _sayable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _sayable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
