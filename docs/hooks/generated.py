"""What pages of the site say that the code knows: a line `<!-- generated: WHAT ... -->` becomes
text when the site is built.

    api MODULE      each name of the module's `__all__`, by its docstring
    names           the same of all public modules, as links
    cells           the built-in cells, each as a paper and as its file says it, with figures
    errors          every cause of a diagnostic, its example, what is printed and the mend
    functions       what equations may call; initializers: what weights may name
    results SUITE   the section of bench/RESULTS.md that the suite's last run wrote
    results "NAME"  the section of that title
    tour CELL PART STAGE    one stage of a cell, as `rnncc explain` prints it

Non-Goals: laying pages out (mkdocs).
"""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # of this checkout, whatever is installed
import decisions  # noqa: E402
from built_in import cells, drawings  # noqa: E402

PUBLIC = (
    "rnncc",
    "rnncc.layers",
    "rnncc.torch",
    "rnncc.keras",
    "rnncc.jax",
    "rnncc.export",
    "rnncc.files",
    "rnncc.models",
    "rnncc.plot",
)
LINE = re.compile(r"^<!-- generated: (.+?) -->$", re.MULTILINE)
WIDEST = 110  # a longer line of an example is cut: what it shows is that it is long


def on_page_markdown(markdown: str, page: Any = None, **_: Any) -> str:
    """mkdocs calls this with a page's text."""
    if page and page.file.src_uri == "decisions.md":
        return decisions.index(markdown)
    markdown = decisions.linked(markdown)
    return LINE.sub(lambda m: made(m[1]), markdown)


def on_files(files: Any, config: Any) -> Any:
    """mkdocs calls this before it reads pages: files that are made for them."""
    from mkdocs.structure.files import File

    for name, text in drawings():
        files.append(File.generated(config, name, content=text))
    every = decisions.parts((ROOT / "docs/decisions.md").read_text("utf-8"))
    for part in every:
        text = decisions.page(part, every)
        files.append(File.generated(config, part.path, content=text))
    return files


def made(request: str) -> str:
    what, *arguments = shlex.split(request)
    return "\n".join(MAKERS[what](*arguments))


def fenced(text: str, language: str = "text", title: str = "") -> Iterator[str]:
    yield f"```{language}" + (f' title="{title}"' if title else "")
    yield from text.rstrip("\n").split("\n")
    yield "```"


def names_of(module: str) -> list[str]:
    """`__all__` as the module's text has it: frameworks need not be installed."""
    path = ROOT / Path(*module.split(".")) / "__init__.py"
    listed = re.search(r"^__all__ = \[(.*?)\]", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert listed, f"{path} has no __all__"
    return re.findall(r'"(\w+)"', listed[1])


def api(module: str) -> Iterator[str]:
    yield f"::: {module}"
    yield from ("    options:", "      members: false", "      show_root_heading: false", "")
    for name in names_of(module):
        if name != "__version__":
            yield f"::: {module}.{name}"
            if name == "Layer":  # what every layer has stands here alone
                yield from ("    options:", "      inherited_members: true")
            yield ""


def names() -> Iterator[str]:
    yield from ("| module | names |", "| --- | --- |")
    for module in PUBLIC:
        page = module.removeprefix("rnncc.") + ".md"
        links = [
            f"[{n}]({page}#{module}.{n})" if n != "__version__" else "`__version__`"
            for n in names_of(module)
        ]
        yield f"| [`{module}`]({page}) | {', '.join(links)} |"


def errors() -> Iterator[str]:
    from rnncc.frontend.causes import CAUSES
    from rnncc.frontend.diagnostics import SpecError
    from rnncc.lowering.cell_interface import check_text

    for code, cause in CAUSES.items():
        message = re.sub(r"\{(\w+)\}", r"*\1*", cause.message.replace("*", r"\*"))
        yield from (f"## {code} {{#{code.lower()}}}", "", f"**{message}**", "", cause.mend, "")
        if not cause.example:
            continue
        text = cause.marked().replace("«", "").replace("»", "")
        try:
            check_text(text, "cell.rnn")
        except SpecError as error:
            yield from fenced("\n".join(map(cut, text.rstrip().split("\n"))), "rnn", "cell.rnn")
            yield from fenced("\n".join(map(cut, str(error).split("\n"))))
        yield ""


def cut(line: str) -> str:
    return line if len(line) <= WIDEST else line[: WIDEST - 4] + " ..."


def functions() -> Iterator[str]:
    from rnncc.frontend.library import SIGNATURES
    from rnncc.frontend.meanings import FUNCTIONS

    yield from ("| function | what it is |", "| --- | --- |")
    yield from (f"| `{name}{SIGNATURES[name]}` | {said} |" for name, said in FUNCTIONS.items())


def initializers() -> Iterator[str]:
    from rnncc.common.initializers import INITIALIZERS as DRAWN
    from rnncc.frontend.meanings import INITIALIZERS

    yield from ("| initializer | what it draws |", "| --- | --- |")
    for name, said in INITIALIZERS.items():
        given = list(inspect.signature(DRAWN[name]).parameters.values())[2:]
        takes = ", ".join(f"{p.name}={p.default!r}" for p in given)
        yield f"| `{name}{f'({takes})' if takes else ''}` | {said} |"


def results(section: str) -> Iterator[str]:
    text = (ROOT / "bench/RESULTS.md").read_text("utf-8")
    found = re.search(
        rf"<!-- {section}: begin -->\n(.*?)<!-- {section}: end -->"
        rf"|^## {re.escape(section)}\n(.*?)(?=^## )",
        text,
        re.DOTALL | re.MULTILINE,
    )
    assert found, f"bench/RESULTS.md has no section {section}"
    yield (found[1] or found[2]).strip("\n")


def tour(cell: str, part: str, stage: str) -> Iterator[str]:
    from rnncc.cli.settings import load
    from rnncc.cli.stages import all_stages

    found = {(s.part, s.name): s.text for s in all_stages(load(cell, []), "float32")}
    text = found[part, stage]
    if stage == "module":  # its forward loop is what a reader came for
        begin = text.index("\n@")
        text = text[: text.index("\n@", begin + 1)]
    yield from fenced(text, "python" if stage == "module" else "text")


MAKERS: dict[str, Callable[..., Iterator[str]]] = {
    f.__name__: f for f in (api, names, cells, errors, functions, initializers, results, tour)
}
