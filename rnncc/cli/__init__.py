"""The command `rnncc`: arguments in, one of eight commands run, an exit code out.

    rnncc compile FILE [-o OUT.py] [--set NAME=VALUE ...] [--target cpu|cuda] [--dtype float32]
                       [--variants plain|all] [--second-order]
    rnncc explain FILE [--after PASS] [--diff] [--backward]
    rnncc check FILE
    rnncc import FILE -o FOLDER [--layers TEXT] [--dtype float32] [--replace] [--report]
    rnncc run MODEL --input x.npy -o y.npy [--block STEPS]
    rnncc export FILE --weights W.npz --name NAME -o FOLDER [--block N] [--storage int8]
    rnncc cells
    rnncc cache [--clear | --texts FOLDER]

0: done. 1: the cell is wrong, or a check failed. 2: the command itself is wrong. An error is
printed once, on stderr, without a traceback; RNNCC_TRACEBACK=1 shows one.

Non-Goals: anything the Python API can't do.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from rnncc.cli.settings import UsageError
from rnncc.frontend.diagnostics import SpecError

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal has no letter for is spelt out
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said why
        return stop.code if isinstance(stop.code, int) else MISUSED
    try:
        code: int = arguments.run(arguments)
        if sys.stdout is not None:  # `rnncc compile lstm >&-`
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # `rnncc explain lstm | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except SpecError as error:
        return _complain(str(error), FAILED)
    except UsageError as error:
        return _complain(f"rnncc: {error}", MISUSED)
    except (ValueError, RuntimeError) as error:
        from rnncc.common.machine import Misset, Missing
        from rnncc.files import FileError

        if not isinstance(error, Missing | Misset | FileError):
            raise
        return _complain(f"rnncc: {error}", MISUSED if isinstance(error, Misset) else FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"rnncc: {where}{error.strerror or error}", FAILED)


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
    from rnncc.common.version import __version__

    parser.add_argument("--version", action="version", version=f"rnncc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

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
    compile_.set_defaults(run=_compile)

    explain = commands.add_parser("explain", help="print every stage from text to module")
    _cell_arguments(explain)
    explain.add_argument("--after", metavar="PASS", help="one stage only: spec, lower, a pass ...")
    explain.add_argument("--diff", action="store_true", help="what each pass changed")
    explain.add_argument("--backward", action="store_true", help="the pullback only")
    explain.set_defaults(run=_explain)

    check = commands.add_parser("check", help="kernels against the interpreter, gradients too")
    _cell_arguments(check, dtype=False)
    check.add_argument("--target", choices=["cpu", "cuda"], default="cpu")
    check.set_defaults(run=_check)

    _model_commands(commands)

    cells = commands.add_parser("cells", help="list the built-in cells")
    cells.set_defaults(run=_cells)

    cache = commands.add_parser("cache", help="show the cache of modules and machine code")
    doing = cache.add_mutually_exclusive_group()
    doing.add_argument("--clear", action="store_true", help="empty it")
    doing.add_argument("--texts", metavar="FOLDER", help="write its modules as files, to be read")
    cache.set_defaults(run=_cache)
    return parser


def _model_commands(commands: Any) -> None:
    import_ = commands.add_parser("import", help="a trained network's file -> a folder that runs")
    import_.add_argument("file", metavar="FILE", help="ONNX, Keras, torch, RTNeural, NAM, ...")
    import_.add_argument("-o", "--output", metavar="FOLDER", required=True)
    import_.add_argument("--layers", metavar="TEXT", help="a state_dict's chain: 'lstm linear'")
    import_.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    import_.add_argument("--replace", action="store_true", help="where a model is there already")
    import_.add_argument("--report", action="store_true", help="print weights, and what runs each")
    import_.set_defaults(run=_import)

    run = commands.add_parser("run", help="a trained network on an array")
    run.add_argument("model", metavar="MODEL", help="a folder of `rnncc import`, or any such file")
    run.add_argument("--input", required=True, metavar="X.npy", help=".npz for several inputs")
    run.add_argument("-o", "--output", required=True, metavar="Y.npy", help=".npz for several")
    run.add_argument("--layers", metavar="TEXT", help="a state_dict's chain: 'lstm linear'")
    run.add_argument(
        "--block", type=int, default=4096, metavar="STEPS", help="of a long sequence, at a time"
    )
    run.set_defaults(run=_run)

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
    export.set_defaults(run=_export)


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
    parser.add_argument("file", metavar="FILE", help="a .rnn file or a built-in cell's name")
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


# Each command is imported when it runs: `rnncc cells` needn't load numba.


def _compile(arguments: argparse.Namespace) -> int:
    from rnncc.cli.compile import run

    return run(arguments)


def _explain(arguments: argparse.Namespace) -> int:
    from rnncc.cli.explain import run

    return run(arguments)


def _check(arguments: argparse.Namespace) -> int:
    from rnncc.cli.check import run

    return run(arguments)


def _import(arguments: argparse.Namespace) -> int:
    from rnncc.cli.trained import import_file

    return import_file(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from rnncc.cli.trained import run_model

    return run_model(arguments)


def _export(arguments: argparse.Namespace) -> int:
    from rnncc.cli.export import run

    return run(arguments)


def _cells(arguments: argparse.Namespace) -> int:
    from rnncc.cli.cells import run

    return run(arguments)


def _cache(arguments: argparse.Namespace) -> int:
    from rnncc.cli.cache import run

    return run(arguments)
