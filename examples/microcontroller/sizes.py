"""A keyword spotter's size on microcontrollers: a GRU of 64 over 40 mel bands, twelve words.

    python examples/microcontroller/sizes.py [--storage int8] [-o FOLDER]

Exports it as C, compiles it by arm-none-eabi-gcc -Os and prints what flash and RAM it takes. Its
weights are random: sizes don't depend on them. `rnncc.export.c(rnncc.load_model(...))` is the same
for a trained one.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import rnncc.export
from rnncc.layers import GRU
from rnncc.models.component import Port, Wired
from rnncc.models.model import Model
from rnncc.models.plain import Dense
from rnncc.models.recurrent import Recurrent

BANDS, UNITS, WORDS = 40, 64, 12
TARGETS = {
    "Cortex-M4F": ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    "Cortex-M7": ("-mcpu=cortex-m7", "-mfpu=fpv5-d16", "-mfloat-abi=hard"),
    "Cortex-M4, no FPU": ("-mcpu=cortex-m4", "-mfloat-abi=soft"),
}


def spotter() -> Model:
    gru = GRU(UNITS, return_sequences=True, seed=1)
    gru.build((None, None, BANDS))
    rng = np.random.default_rng(1)
    kernel = rng.standard_normal((UNITS, WORDS)).astype("float32") / 8
    head = Dense("words", kernel, np.zeros(WORDS, "float32"), "softmax")
    nodes = [Wired(Recurrent("gru", gru), ("x",), ("h",)), Wired(head, ("h",), ("y",))]
    shapes = ("batch", "time", BANDS), ("batch", "time", WORDS)
    return Model([Port("x", shapes[0])], [Port("y", shapes[1])], nodes)


def sections(folder: Path, flags: tuple[str, ...]) -> dict[str, int]:
    """Bytes of code (.text), constants (.rodata), variables (.data, .bss)."""
    with tempfile.TemporaryDirectory() as made:
        target = str(Path(made) / "word.o")
        command = ["arm-none-eabi-gcc", "-std=c99", "-Os", "-mthumb", *flags, "-c"]
        subprocess.run([*command, str(folder / "word.c"), "-o", target], check=True)
        done = subprocess.run(
            ["arm-none-eabi-size", "-A", target], check=True, capture_output=True, text=True
        )
    found = re.findall(r"^\.(text|rodata|data|bss)\S*\s+(\d+)", done.stdout, re.MULTILINE)
    sizes = dict.fromkeys(("text", "rodata", "data", "bss"), 0)
    for name, size in found:
        sizes[name] += int(size)
    return sizes


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="a keyword spotter's flash and RAM")
    parser.add_argument("--storage", choices=["float32", "bfloat16", "int8"], default="int8")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="where the C stays")
    given = parser.parse_args(arguments)
    if shutil.which("arm-none-eabi-gcc") is None:
        print("needs arm-none-eabi-gcc (Debian's gcc-arm-none-eabi)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(given.output or Path(kept) / "word")
        try:
            rnncc.export.c(spotter(), folder, name="word", block=1, storage=given.storage)
        except OSError as error:
            print(error, file=sys.stderr)
            return 2
        text = (folder / "README.md").read_text(encoding="utf-8")
        ram = re.search(r"`word_state` \| (\d+) bytes", text)
        stack = re.search(r"stack of (\d+) bytes", text)
        assert ram and stack
        print("| bytes | code | weights | RAM | stack |\n| --- | --- | --- | --- | --- |")
        for name, flags in TARGETS.items():
            size = sections(folder, flags)
            row = [size["text"], size["rodata"], int(ram[1]) + size["data"] + size["bss"]]
            print(f"| {name} | {' | '.join(map(str, row))} | {stack[1]} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
