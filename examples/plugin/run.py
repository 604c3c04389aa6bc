"""An amplifier in a C++ host: a model is exported as C, compiled, and a WAV file runs through it.

    python examples/plugin/run.py MODEL IN.wav OUT.wav

MODEL is what `rnncc import` knows of one channel (.nam, RTNeural's or AIDA-X's .json, a folder);
`host.cpp` is the program around it, which is all that a plugin's audio thread would do.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import rnncc
import rnncc.export

HERE = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-Wall", "-Wextra")


def build(model: str, folder: Path) -> Path:
    """The host's program. OSError, ValueError and TypeError as `load_model` and `export.c`."""
    made = rnncc.export.c(rnncc.load_model(model), folder / "amp", name="amp", block=64)
    parts = [str(made / "amp.o"), str(made / "host")]
    subprocess.run(["gcc", "-std=c99", *FLAGS, "-c", made / "amp.c", "-o", parts[0]], check=True)
    host = ["g++", "-std=c++17", *FLAGS, f"-I{made}", HERE / "host.cpp", parts[0], "-o", parts[1]]
    subprocess.run([*host, "-lm"], check=True)
    return Path(parts[1])


def main() -> int:
    parser = argparse.ArgumentParser(description="an amplifier's model over a WAV file, in C++")
    for name in ("model", "source", "target"):
        parser.add_argument(name)
    given = parser.parse_args()
    if absent := [p for p in ("gcc", "g++") if shutil.which(p) is None]:
        print(f"needs {' and '.join(absent)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        try:
            program = build(given.model, Path(folder))
        except (OSError, ValueError, TypeError) as error:
            print(error, file=sys.stderr)
            return 2
        return subprocess.run([program, given.source, given.target]).returncode


if __name__ == "__main__":
    sys.exit(main())
