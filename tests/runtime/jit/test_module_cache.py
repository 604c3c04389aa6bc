"""Modules out of texts and out of the cache: one for a text, for as long as it is in use."""

from __future__ import annotations

import gc
import os
import traceback
import weakref
from pathlib import Path

import pytest

from rnncc.runtime.jit import cache_folder, module_cache
from rnncc.runtime.jit.module_cache import keyed_module, text_module

TEXT = '"""A module."""\n\nvalue = [1, 2]\n\n\ndef fail():\n    raise ValueError("here")\n'


@pytest.fixture(autouse=True)
def any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a module may say is `test_hostile_text`'s."""
    monkeypatch.setattr(module_cache, "check_module", lambda text: text)


def never() -> str:
    raise AssertionError("rendered although the cache has it")


def forget() -> None:
    gc.collect()
    module_cache._modules.clear()


def test_a_module_is_rendered_once(fresh_store: Path) -> None:
    first = keyed_module("made", "key", lambda: TEXT)
    assert keyed_module("made", "key", never) is first
    assert text_module("made", TEXT) is first, "the same text is the same module"
    forget()
    again = keyed_module("made", "key", never)
    assert again is not first and again.value == [1, 2]
    assert keyed_module("made", "other key", lambda: TEXT + "value = 3\n").value == 3
    assert len(list(fresh_store.glob("made.*.module"))) == 2


def test_a_source_that_changes_is_another_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "rnncc" / "passes" / "one.py"
    template = tmp_path / "templates" / "cpu" / "two.jinja"
    for path in (source, template):
        path.parent.mkdir(parents=True)
        path.write_text("same")
    monkeypatch.setattr(module_cache, "PACKAGE", tmp_path / "rnncc")
    find = module_cache.compiler_hash.__wrapped__
    before = find()
    assert find() == before
    for path in (source, template):
        os.utime(path, ns=(0, 1))
        assert find() != before
        before = find()
    template.write_text("longer")
    os.utime(template, ns=(0, 1))
    assert find() != before


@pytest.mark.parametrize("decides", ["compiler_hash", "python_version", "host", "written_by"])
def test_another_rnncc_python_or_width_is_another_entry(
    fresh_store: Path, monkeypatch: pytest.MonkeyPatch, decides: str
) -> None:
    keyed_module("made", "key", lambda: TEXT)

    class Other:
        vector_bytes = 128

    monkeypatch.setattr(module_cache, decides, Other if decides == "host" else lambda: "another")
    assert keyed_module("made", "key", lambda: TEXT + "value = 4\n").value == 4


def test_a_damaged_module_is_rendered_again(
    fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed_module("made", "key", lambda: TEXT)
    (path,) = fresh_store.iterdir()
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    forget()
    monkeypatch.setattr(cache_folder, "_said", set())
    with pytest.warns(cache_folder.CacheWarning, match="its checksum is wrong"):
        assert keyed_module("made", "key", lambda: TEXT).value == [1, 2]
    forget()
    keyed_module("made", "key", never)


def test_modules_need_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNCC_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache_folder, "_said", {"unusable"})
    assert keyed_module("made", "key", lambda: TEXT).value == [1, 2]


def test_tracebacks_show_lines(fresh_store: Path) -> None:
    module = keyed_module("made", "lines", lambda: TEXT)
    try:
        module.fail()
    except ValueError:
        shown = traceback.format_exc()
    assert 'raise ValueError("here")' in shown and f'{module.__file__}", line 7' in shown


def test_a_module_lives_as_long_as_a_function_of_it(fresh_store: Path) -> None:
    module = text_module("made", TEXT + "# lives\n")
    gone, fail = weakref.ref(module), module.fail
    del module
    gc.collect()
    assert gone() is not None and text_module("made", TEXT + "# lives\n").fail is fail
    del fail
    gc.collect()
    assert gone() is None


def test_nothing_else_lies_in_the_folder(fresh_store: Path) -> None:
    """No byte code that Python would load unseen."""
    keyed_module("made", "key", lambda: TEXT)
    assert [n for n in os.listdir(fresh_store) if not n.endswith(".module")] == []


def test_every_formula_is_part_of_what_machine_code_is_kept_under() -> None:
    """A module of them that isn't would leave old machine code in use when it changes."""
    folder = module_cache.PACKAGE / "runtime" / "cpu" / "intrinsics"
    formulas = {f"runtime/cpu/intrinsics/{p.name}" for p in folder.glob("*.py")}
    assert formulas - {"runtime/cpu/intrinsics/__init__.py"} <= {*module_cache.KERNEL_SOURCES}
