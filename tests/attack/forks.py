"""Forks, spawned processes and signals while calls run and kernels are compiled, each in a process
of its own: every call that comes to its end is right, in the parent and in the child.

Non-Goals: GPUs; what a framework does in a forked child.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.attack import Attack
from tests.support.paths import ROOT

SECONDS = 240
COMMON = """
import faulthandler, gc, multiprocessing, os, pickle, random, signal, sys, threading, time
import numpy as np
import rnncc
rng = random.Random({seed!r})
TEXT = '''cell: Small
units: size
x: input[units]
h: state[units]
w: weight[units] = ones
# {{}}
h[t] = tanh(w * h[t-1] + {{}} * x[t])
return h[t]
'''
X = np.linspace(-1, 1, 5 * 7 * 16, dtype="float32").reshape(5, 7, 16)

def expected(factor):
    h, out = np.zeros((5, 16)), []
    for t in range(7):
        h = np.tanh(h + factor * X[:, t].astype("float64"))
        out.append(h)
    return np.stack(out, 1)

def layer(comment="", factor=1.0):
    cell = rnncc.compile_text(TEXT.format(comment, factor))
    return cell(units=16, seed=1, return_sequences=True)

def check(made, factor=1.0):
    y, pullback = made.vjp(X)
    np.testing.assert_allclose(y, expected(factor), atol=1e-5)
    assert np.isfinite(pullback(np.ones_like(y)).inputs).all()

def child(work):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            faulthandler.dump_traceback_later({seconds}, exit=True)
            work()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid

def wait(pids):
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"a child ended with {{status}}"
"""
CALLS = """
made = layer()
check(made)
done = threading.Event()

def busy():
    while not done.is_set():
        check(made)

threads = [threading.Thread(target=busy) for _ in range(3)]
for t in threads:
    t.start()

def work():
    check(made)
    check(layer("anew in the child"))
    gc.collect()

pids = []
for _ in range(6):
    time.sleep(rng.random() * 0.05)
    pids.append(child(work))
wait(pids)
done.set()
for t in threads:
    t.join()
check(made)
"""
COMPILING = """
os.environ["RNNCC_CACHE_BYTES"] = "0"
made = layer()
check(made)
factor = 1 + rng.randrange(1000) / 1000
thread = threading.Thread(target=lambda: check(layer("meanwhile", factor), factor))
thread.start()

def work():
    check(made)
    gc.collect()
    check(layer("meanwhile", factor), factor)

pids = []
for _ in range(2):
    time.sleep(rng.random() * 0.7)
    pids.append(child(work))
thread.join()
wait(pids)
check(layer("meanwhile", factor), factor)
"""
SIGNALS = """
os.environ["RNNCC_CACHE_BYTES"] = "0"

class Rang(Exception):
    pass

rings = 0

def ring(*_):
    global rings
    rings += 1
    raise Rang  # Python drops it where it comes up in a finalizer

signal.signal(signal.SIGALRM, ring)
factor = 1 + rng.randrange(1000) / 1000
for i in range(4):
    signal.setitimer(signal.ITIMER_REAL, 0.01 + rng.random())
    try:
        made = layer("rung", factor)
        while rings <= i:
            check(made, factor)
    except Rang:
        pass
    except RuntimeError as error:  # as Python wraps what is raised while a class is made
        if not isinstance(error.__cause__, Rang):
            raise
check(layer("rung", factor), factor)
"""
SPAWNED = """
def work(data):
    check(pickle.loads(data))

if __name__ == "__main__":
    made = layer()
    check(made)
    done = threading.Event()

    def busy():
        while not done.is_set():
            check(made)

    thread = threading.Thread(target=busy)
    thread.start()
    data = pickle.dumps(made)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(data,)) for _ in range(2)]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
        assert p.exitcode == 0, p.exitcode
    done.set()
    thread.join()
"""
KINDS = {"calls": CALLS, "compiling": COMPILING, "signals": SIGNALS, "spawned": SPAWNED}


def attempt(index: int, seed: int) -> str | None:
    kind = list(KINDS)[index % len(KINDS)]
    name = f"forks {seed} {index}"
    text = COMMON.format(seconds=SECONDS, seed=name) + KINDS[kind]
    path = ROOT / ".attack" / f"{name.replace(' ', '_')}_{os.getpid()}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RNNCC_NUM_THREADS": "2"}
    process = subprocess.Popen(
        [sys.executable, str(path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=SECONDS + 30)
    except subprocess.TimeoutExpired:
        return f"{kind}: not done after {SECONDS} s"
    finally:
        path.unlink()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return f"{kind}: exit status {process.returncode}:\n{out}" if process.returncode else None


ATTACK = Attack(
    name="forks",
    about="forks, spawned processes and signals during calls and while kernels are compiled",
    count=100,
    short=1,
    attempt=attempt,
)
