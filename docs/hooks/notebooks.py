"""Notebooks of docs/notebooks as pages of the site, with the outputs that are stored in them.

    notebooks/digits.ipynb -> notebooks/digits.html, and beside it the notebook to download

Non-Goals: running them (`tests/examples/test_notebooks.py`); how a page looks (mkdocs).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import DictLoader
from mkdocs.structure.files import File, Files
from nbconvert.exporters import MarkdownExporter
from traitlets.config import Config

# A picture has the words of its cell's metadata. What a notebook shows as HTML stands as it is.
LAYOUT = """\
{% extends "markdown/index.md.j2" %}
{% block data_png %}
![{{ cell.metadata.get("alt", "a picture") }}](data:image/png;base64,{{ output.data["image/png"] }})
{% endblock %}
{% block data_html %}

<div style="overflow-x:auto">{{ output.data["text/html"] }}</div>

{% endblock %}
"""
SHOWN = ["text/html", "image/png", "text/plain"]  # the first of them that an output has


class NotebookPage(File):
    """A notebook that mkdocs takes for a page: links to it lead to the page, too."""

    def is_documentation_page(self) -> bool:
        return True

    @property
    def content_string(self) -> str:
        """The notebook as Markdown."""
        return page_of(Path(self.abs_src_path or ""))


def on_files(files: Files, config: Any) -> Files:
    """mkdocs calls this with all files that it found."""
    for file in [f for f in files if f.src_uri.endswith(".ipynb")]:
        files.remove(file)
        page = NotebookPage(file.src_uri, file.src_dir, config.site_dir, config.use_directory_urls)
        page.inclusion = file.inclusion
        files.append(page)
    return files


def on_post_build(config: Any) -> None:
    """mkdocs calls this when the site is written."""
    source = Path(config.docs_dir, "notebooks")
    for path in source.glob("*.ipynb"):
        shutil.copy(path, Path(config.site_dir, "notebooks"))


def page_of(path: Path) -> str:
    """A notebook as Markdown, with a link to itself below the title."""
    config = Config()
    config.NbConvertBase.display_data_priority = SHOWN
    config.ExtractOutputPreprocessor.enabled = False  # pictures stand in the page itself
    exporter = MarkdownExporter(
        config=config,
        extra_loaders=[DictLoader({"page.md.j2": LAYOUT})],
        template_file="page.md.j2",
    )
    text, _ = exporter.from_notebook_node(nbformat.read(path, as_version=4))
    title, _, rest = text.strip().partition("\n")
    link = f'<a href="{path.name}" download>This page as a notebook</a>, run from top to bottom.'
    return f"{title}\n\n{link}\n{rest}\n"
