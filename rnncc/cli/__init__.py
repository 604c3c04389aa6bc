"""The command `rnncc`: arguments in, one of its commands run, an exit code out.

    rnncc new NAME [-o FILE.rnn]
    rnncc fmt FILE ... [--check] [--diff]
    rnncc compile FILE [-o OUT.py] [--set NAME=VALUE ...] [--target cpu|cuda] [--dtype float32]
                       [--variants plain|all] [--second-order]
    rnncc explain FILE [--after PASS] [--diff] [--backward] [--html PAGE.html]
    rnncc draw FILE -o OUT.svg [--set NAME=VALUE ...]
    rnncc check FILE
    rnncc import FILE -o FOLDER [--layers TEXT] [--dtype float32] [--replace] [--report]
    rnncc run MODEL --input x.npy -o y.npy [--block STEPS]
    rnncc export FILE --weights W.npz --name NAME -o FOLDER [--block N] [--storage int8]
    rnncc cells
    rnncc cache [--clear | --texts FOLDER]
    rnncc doctor
    rnncc completion bash|zsh|fish
    rnncc lsp

compile, explain, check, cells and doctor print JSON with --json (`cli.report`).

0: done. 1: the cell is wrong, or a check failed. 2: the command itself is wrong. An error is
printed once, on stderr, without a traceback; RNNCC_TRACEBACK=1 shows one.

Non-Goals: anything the Python API can't do.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rnncc.cli.completion import SHELLS, answer, cells, stages
from rnncc.cli.settings import UsageError
from rnncc.common.progress import command_begins, working
from rnncc.frontend.diagnostics import SpecError

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal has no letter for is spelt out
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    answer(parser)
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has said why
        return stop.code if isinstance(stop.code, int) else MISUSED
    command_begins()
    try:
        code: int = arguments.run(arguments)
        # `rnncc compile lstm >&-`; the language server closes it
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # `rnncc explain lstm | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        message, code = told
        nowhere = isinstance(error, OSError) and not error.filename  # stdout itself, it may be
        if getattr(arguments, "json", False) and not nowhere:
            from rnncc.cli.report import print_errors

            print_errors(arguments.command, error, message)
            return code
        return _complain(message, code)


def _told(error: Exception) -> tuple[str, int] | None:
    """What is said of an error that people make, and the exit code; None: the mistake is ours."""
    from rnncc.common.machine import Misset, Missing
    from rnncc.files import FileError

    if isinstance(error, SpecError):
        return str(error), FAILED
    if isinstance(error, UsageError | Misset):
        return f"rnncc: {error}", MISUSED
    if isinstance(error, Missing | FileError):
        return f"rnncc: {error}", FAILED
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"rnncc: {where}{error.strerror or error}", FAILED
    return None


def _complain(message: str, code: int) -> int:
    if os.environ.get("RNNCC_TRACEBACK") and sys.exc_info()[0] is not None:
        raise
    print(message, file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rnncc",
        description="Compile the equations of a recurrent cell into kernels that train.",
        epilog="FILE is a .rnn file or the name of a built-in cell (`rnncc cells`).",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="rnncc's, Python's and the compilers'"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _writing_commands(commands)
    _cell_commands(commands)
    _model_commands(commands)

    builtin = commands.add_parser("cells", help="list the built-in cells")
    _json_argument(builtin)
    builtin.set_defaults(run=_later("cells"))

    cache = commands.add_parser("cache", help="show the cache of modules and machine code")
    doing = cache.add_mutually_exclusive_group()
    doing.add_argument("--clear", action="store_true", help="empty it")
    doing.add_argument("--texts", metavar="FOLDER", help="write its modules as files, to be read")
    cache.set_defaults(run=_later("cache"))

    doctor = commands.add_parser("doctor", help="what is here, and what is missing for what")
    _json_argument(doctor)
    doctor.set_defaults(run=_later("doctor"))

    lsp = commands.add_parser("lsp", help="the language server, for editors to start")
    lsp.add_argument("--stdio", action="store_true", help="as it is anyhow; editors say it")
    lsp.set_defaults(run=_later("lsp"))

    completion = commands.add_parser("completion", help="print a shell's completion of rnncc")
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=_later("completion"))
    return parser


class _Version(argparse.Action):
    """On one line, however narrow the terminal is."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from rnncc.cli.doctor import versions

        print(versions())
        parser.exit()


def _later(module: str, function: str = "run") -> Callable[[argparse.Namespace], int]:
    """A command's function, imported when it runs: `rnncc cells` needn't load numba."""

    def run(arguments: argparse.Namespace) -> int:
        from importlib import import_module

        with working("starting"):
            command = getattr(import_module(f"rnncc.cli.{module}"), function)
        code: int = command(arguments)
        return code

    return run


def _writing_commands(commands: Any) -> None:
    new = commands.add_parser("new", help="write a cell to start from, each part explained")
    new.add_argument("name", metavar="NAME", help="the cell's, as in equations: MyCell")
    new.add_argument("-o", "--output", metavar="FILE.rnn", help="default: the name's, here")
    new.set_defaults(run=_later("new"))

    fmt = commands.add_parser("fmt", help="lay out cells as the built-in ones are")
    fmt.add_argument("files", metavar="FILE", nargs="+", help=".rnn files; - is stdin to stdout")
    fmt.add_argument("--check", action="store_true", help="write nothing; 1 where one isn't")
    fmt.add_argument("--diff", action="store_true", help="write nothing, and show what would be")
    fmt.set_defaults(run=_later("fmt"))


def _cell_commands(commands: Any) -> None:
    compile_ = commands.add_parser("compile", help="write a module with the cell's layer")
    _cell_arguments(compile_)
    compile_.add_argument("-o", "--output", metavar="OUT.py", help="default: FILE's name, here")
    compile_.add_argument("--target", choices=["cpu", "cuda"], default="cpu")
    compile_.add_argument(
        "--variants",
        choices=["plain", "all"],
        default="plain",
        help="plain: the others are rendered when a call needs them; all: nothing ever is",
    )
    compile_.add_argument(
        "--second-order",
        action="store_true",
        help="with kernels for second derivatives, too (pullback.vjp)",
    )
    compile_.add_argument("--force", action="store_true", help="overwrite any file")
    _json_argument(compile_)
    compile_.set_defaults(run=_later("compile"))

    explain = commands.add_parser("explain", help="print every stage from text to module")
    _cell_arguments(explain)
    after = explain.add_argument(
        "--after", metavar="PASS", help="one stage only: spec, lower, a pass ..."
    )
    after.completer = stages  # type: ignore[attr-defined]
    explain.add_argument("--diff", action="store_true", help="what each pass changed")
    explain.add_argument("--backward", action="store_true", help="the pullback only")
    explain.add_argument(
        "--html", metavar="PAGE.html", help="write a page: each line shows what it became"
    )
    _json_argument(explain)
    explain.set_defaults(run=_later("explain"))

    draw = commands.add_parser("draw", help="a picture of a step: what is dense, what pointwise")
    _cell_arguments(draw, dtype=False)
    draw.add_argument("-o", "--output", metavar="OUT.svg", required=True, help="or .png, .pdf")
    draw.set_defaults(run=_later("draw"))

    check = commands.add_parser("check", help="kernels against the interpreter, gradients too")
    _cell_arguments(check, dtype=False)
    check.add_argument("--target", choices=["cpu", "cuda"], default="cpu")
    _json_argument(check)
    check.set_defaults(run=_later("check"))


def _model_commands(commands: Any) -> None:
    import_ = commands.add_parser("import", help="a trained network's file -> a folder that runs")
    import_.add_argument("file", metavar="FILE", help="ONNX, Keras, torch, RTNeural, NAM, ...")
    import_.add_argument("-o", "--output", metavar="FOLDER", required=True)
    import_.add_argument("--layers", metavar="TEXT", help="a state_dict's chain: 'lstm linear'")
    import_.add_argument("--dtype", choices=["float32", "float64"], help="where no file says it")
    import_.add_argument("--replace", action="store_true", help="where a model is there already")
    import_.add_argument("--report", action="store_true", help="print weights, and what runs each")
    import_.set_defaults(run=_later("trained", "import_file"))

    run = commands.add_parser("run", help="a trained network on an array")
    run.add_argument("model", metavar="MODEL", help="a folder of `rnncc import`, or any such file")
    run.add_argument("--input", required=True, metavar="X.npy", help=".npz for several inputs")
    run.add_argument("-o", "--output", required=True, metavar="Y.npy", help=".npz for several")
    run.add_argument("--layers", metavar="TEXT", help="a state_dict's chain: 'lstm linear'")
    run.add_argument(
        "--block", type=int, default=4096, metavar="STEPS", help="of a long sequence, at a time"
    )
    run.set_defaults(run=_later("trained", "run_model"))

    export = commands.add_parser("export", help="a trained cell or model -> C99, or ONNX")
    _cell_arguments(export)
    export.add_argument(
        "--weights", metavar="W.npz", help="a cell's, of a layer's save(); without: FILE is a model"
    )
    export.add_argument("--layers", metavar="TEXT", help="a state_dict's chain: 'lstm linear'")
    export.add_argument("--name", help="what all C names begin with")
    export.add_argument("-o", "--output", required=True, metavar="FOLDER", help="or FILE.onnx")
    export.add_argument("--block", type=int, metavar="STEPS", help="that NAME_block takes at once")
    export.add_argument(
        "--storage",
        choices=["float32", "bfloat16", "int8"],
        help="how the weights that C's sums read are kept (float32 cells; as they are)",
    )
    _onnx_arguments(export.add_argument_group("ONNX"))
    export.set_defaults(run=_later("export"))


def _onnx_arguments(group: Any) -> None:
    group.add_argument("--onnx", action="store_true", help="a file of it, -o FILE.onnx")
    group.add_argument("--states", action="store_true", help="are inputs and outputs")
    group.add_argument("--lengths", action="store_true", help="of rows are an input")
    group.add_argument("--mask", action="store_true", help="is an input")
    group.add_argument("--last", action="store_true", help="the last step's output alone")
    group.add_argument(
        "--form", choices=["auto", "node", "scan"], default="auto", help="ONNX's nodes, or Scan"
    )


def _cell_arguments(parser: argparse.ArgumentParser, *, dtype: bool = True) -> None:
    file = parser.add_argument("file", metavar="FILE", help="a .rnn file or a built-in cell's name")
    file.completer = cells  # type: ignore[attr-defined]
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="bind an option, a function or a size; may be repeated",
    )
    if dtype:
        parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")


def _json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, mistakes too")
