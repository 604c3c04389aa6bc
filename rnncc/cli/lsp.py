"""`rnncc lsp`: the language server, for editors to start.

Non-Goals: answers (`editor.server`).
"""

from __future__ import annotations

import argparse
import sys


def run(arguments: argparse.Namespace) -> int:
    """Serves on stdin and stdout until the editor ends it."""
    try:
        import pygls.lsp.server  # noqa: F401
    except ImportError:
        print("rnncc: the language server needs pygls 2: pip install 'rnncc[lsp]'", file=sys.stderr)
        return 1
    from rnncc.editor.server import serve

    serve()
    return 0
