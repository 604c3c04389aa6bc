"""`rnncc completion SHELL`: what a shell reads to complete rnncc's commands (argcomplete).

    eval "$(rnncc completion bash)"       # in ~/.bashrc; zsh: the same in ~/.zshrc
    rnncc completion fish | source        # in config.fish

Non-Goals: installing it.
"""

from __future__ import annotations

import argparse
import os
import sys

SHELLS = ("bash", "zsh", "fish")
_ASKED = "_ARGCOMPLETE"  # what a shell sets when it asks for completions


def run(arguments: argparse.Namespace) -> int:
    try:
        import argcomplete
    except ImportError:
        print(
            "rnncc: shell completion needs argcomplete: pip install 'rnncc[completion]'",
            file=sys.stderr,
        )
        return 1
    print(argcomplete.shellcode(["rnncc"], shell=arguments.shell))
    return 0


def answer(parser: argparse.ArgumentParser) -> None:
    """Answers a shell that asks, and ends the process; nothing in a command that is to run."""
    if _ASKED not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(parser, always_complete_options=False)


def cells(prefix: str, **_: object) -> list[str]:
    """Names of built-in cells, and files of cells, that begin so."""
    from argcomplete.completers import FilesCompleter

    from rnncc.cli.settings import builtin_cells

    named = [n for n in builtin_cells() if n.startswith(prefix)]
    return [*named, *FilesCompleter(("rnn",))(prefix)]


def stages(prefix: str, **_: object) -> list[str]:
    """What --after takes."""
    from rnncc.cli.stages import stage_names

    return [n for n in stage_names() if n.startswith(prefix)]
