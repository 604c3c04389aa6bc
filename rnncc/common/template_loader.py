"""The jinja2 environment, with templates found in a wheel or in a checkout.

Non-Goals: what templates are given; formatting what they give.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2

PACKAGE = Path(__file__).parent.parent


def template_root() -> Path:
    """`rnncc/templates` in a wheel, `templates` beside the package in a checkout."""
    inside = PACKAGE / "templates"
    return inside if inside.is_dir() else PACKAGE.parent / "templates"


@cache
def environment() -> jinja2.Environment:
    import jinja2  # only where something is rendered: a process that finds all in the store isn't

    from rnncc.common.user_text import printed

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_root()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # What is printed is `Code` or becomes it, so nothing is ever escaped.
        autoescape=True,
        finalize=printed,
    )


def render(name: str, **values: object) -> str:
    """The named template's text."""
    return str(environment().get_template(name).render(**values))
