"""C on the machines that are cheap to have: checked memory, a Cortex-M, no call of the system.

Non-Goals: all cells, all machines (`python -m tests.attack c`).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rnncc
import rnncc.export
from tests.support.c.toolchains import STRICT, TOOLCHAINS
from tests.support.c.units import built

CHEAP = ("sanitizers", "valgrind", "cortex-m4", "cortex-m4-soft", "cortex-m7")


@pytest.fixture(scope="module")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LSTM of 16, a step at a time."""
    layer = built(rnncc.compile("lstm")(units=16, seed=1), (None, None, 1))
    return rnncc.export.c(layer, tmp_path_factory.mktemp("c") / "made", name="net", block=1)


@pytest.mark.parametrize("name", CHEAP)
def test_its_own_test_passes_there(name: str, lstm: Path, tmp_path: Path) -> None:
    toolchain = TOOLCHAINS.get(name)
    if toolchain is None or toolchain.missing:
        pytest.skip(f"{name}: {toolchain.missing if toolchain else 'not for this machine'}")
    program = tmp_path / "program"
    toolchain.build([lstm / "net.c", lstm / "net_test.c"], program)
    done = toolchain.run(program)
    assert done.returncode == 0 and "a block is its steps" in done.stdout, done


def test_sizes_on_a_cortex_m4(lstm: Path, tmp_path: Path) -> None:
    """Code below 6 KB beside weights; what the README says of weights and RAM."""
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("no arm-none-eabi-gcc")
    text = (lstm / "README.md").read_text()
    flash, ram, stack = (
        int(re.search(pattern, text)[1])  # type: ignore[index]
        for pattern in (r"\| (\d+) bytes, float", r"_state` \| (\d+) bytes", r"stack of (\d+)")
    )
    (tmp_path / "size.c").write_text(
        f'#include "net.h"\ntypedef char size[sizeof(net_state) == {ram} ? 1 : -1];\n'
        "static net_state state;\nnet_state *used = &state;\n"
    )
    flags = ["-std=c99", "-Os", "-mthumb", "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16"]
    flags += ["-mfloat-abi=hard", "-fstack-usage", f"-I{lstm}", "-c"]
    for source in (lstm / "net.c", tmp_path / "size.c"):
        command = ["arm-none-eabi-gcc", *flags, str(source), "-o", f"{source.stem}.o"]
        subprocess.run(command, cwd=tmp_path, check=True)
    sizes = subprocess.run(
        ["arm-none-eabi-size", "-A", "net.o"], cwd=tmp_path, capture_output=True, text=True
    ).stdout
    section = {n: int(v) for n, v in re.findall(r"^\.(\w+)\s+(\d+)", sizes, re.MULTILINE)}
    assert section["text"] <= 6 * 1024 and section["data"] == section["bss"] == 0
    assert section["rodata"] == flash
    used = (tmp_path / "net.su").read_text().splitlines()
    frames = {line.split(":")[-1].split()[0]: int(line.split("\t")[1]) for line in used}
    deepest = frames["net_step"] + frames.get("net_run", 0) + frames["net_add_64"]
    assert deepest <= stack + 160, "what it keeps there, and registers of three calls"


# Steps run where a process may only write and end; what allocates is counted.
SEALED = """
#define _GNU_SOURCE
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "net.h"

static int counted;
static char some[64];
void *__wrap_malloc(size_t size) { (void)size; ++counted; return some; }
void __wrap_free(void *place) { (void)place; ++counted; }
int __wrap_pthread_mutex_lock(void *lock) { (void)lock; ++counted; return 0; }

static net_state state;
static net_real x[40], y[40 * 16];

int main(void)
{
    net_init(&state);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) return 77;
    for (int i = 0; i < 100; ++i) net_step(&state, x, y);
    net_block(&state, x, y, 40);
    syscall(SYS_exit, counted ? 3 : 0);
    return 9;
}
"""
PLANTED = {
    "": "",
    "malloc": "{ void *volatile p = malloc(9); (void)p; }",
    "free": "free(s);",
    "lock": "pthread_mutex_lock((pthread_mutex_t *)s);",
    "system": "(void)getppid();",
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="seccomp is Linux's")
@pytest.mark.parametrize("planted", PLANTED)
def test_steps_allocate_lock_and_ask_the_system_for_nothing(
    planted: str, lstm: Path, tmp_path: Path
) -> None:
    """The same program notices each of them, if one is planted in a step."""
    if (gcc := shutil.which("gcc")) is None:
        pytest.skip("no gcc")
    source = (lstm / "net.c").read_text()
    at = source.index("{", source.index("void net_step(")) + 1
    more = "#include <pthread.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
    (tmp_path / "net.c").write_text(f"{more}{source[:at]}{PLANTED[planted]}{source[at:]}")
    (tmp_path / "sealed.c").write_text(SEALED)
    wrapped = [f"-Wl,--wrap={n}" for n in ("malloc", "free", "pthread_mutex_lock")]
    sources = ["net.c", "sealed.c", f"-I{lstm}", "-lm"]
    command = [gcc, "-O2", "-D_GNU_SOURCE", *wrapped, *sources, "-o", "program"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run([str(tmp_path / "program")], capture_output=True)
    if done.returncode == 77:
        pytest.skip("no seccomp here")
    expected = {"": 0, "system": -9}.get(planted, 3)
    assert done.returncode == expected, (planted, done)


def test_clang_has_nothing_to_say(tmp_path: Path) -> None:
    """It minds what isn't used, also of narrow weights and without vectors."""
    if (clang := shutil.which("clang")) is None:
        pytest.skip("no clang")
    for storage in ("bfloat16", "int8"):
        layer = built(rnncc.compile("gru")(units=9, seed=1, weights=storage), (None, None, 5))
        made = rnncc.export.c(layer, tmp_path / storage, name="net")
        for plain in ([], ["-DNET_PLAIN"]):
            command = [clang, *STRICT, *plain, "-O1", "-c", str(made / "net.c"), "-o", "/dev/null"]
            subprocess.run(command, check=True)
