"""A Pygments lexer of `.rnn`: sites, notebooks and terminals colour cells by it.

It is an entry point: `pygments.lexers.get_lexer_by_name("rnn")` finds it where rnncc is installed.

Non-Goals: mistakes; whatever isn't of the language is left plain.
"""

from __future__ import annotations

from pygments.lexer import RegexLexer, bygroups, words
from pygments.token import (
    Comment,
    Keyword,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Text,
    Whitespace,
)

from rnncc.editor.words import CONSTANTS, DECLARES, FUNCTIONS, INITIALIZERS_IN_ORDER, KEYWORDS

_KINDS = "|".join(DECLARES[1:])


class RnnLexer(RegexLexer):
    """Declarations by their kinds, functions where they are called or named, times."""

    name = "rnncc"
    aliases = ("rnn", "rnncc")
    filenames = ("*.rnn",)
    url = "https://pypi.org/project/rnncc"

    tokens = {  # noqa: RUF012  Pygments reads it of the class
        "root": [
            (r"\n", Whitespace),
            (r"[^\S\n]+", Whitespace),
            (r"#[^\n]*", Comment.Single),
            (r'"""[\s\S]*?"""', String.Doc),
            (r"'''[\s\S]*?'''", String.Doc),
            (r'"(\\.|[^"\\\n])*"|\'(\\.|[^\'\\\n])*\'', String),
            (
                r"^(cell)([^\S\n]*)(:)([^\S\n]*)([A-Za-z]\w*)",
                bygroups(Keyword.Declaration, Whitespace, Punctuation, Whitespace, Name.Class),
            ),
            (
                rf"^([A-Za-z]\w*)([^\S\n]*)(:)([^\S\n]*)({_KINDS})\b",
                bygroups(Name.Variable, Whitespace, Punctuation, Whitespace, Keyword.Type),
            ),
            # The other of two shapes: `weight[2, n] if deep else weight[n]`.
            (rf"(?<=else )({_KINDS})(?=\[)", Keyword.Type),
            (
                r"(\[)([^\S\n]*)(t)\b([^\S\n]*)([-+]?)([^\S\n]*)(\d*)([^\S\n]*)(\])",
                bygroups(
                    Punctuation,
                    Whitespace,
                    Name.Builtin.Pseudo,
                    Whitespace,
                    Operator,
                    Whitespace,
                    Number.Integer,
                    Whitespace,
                    Punctuation,
                ),
            ),
            (words(KEYWORDS, prefix=r"\b", suffix=r"\b"), Keyword),
            (words(CONSTANTS, prefix=r"\b", suffix=r"\b"), Keyword.Constant),
            (words(FUNCTIONS, prefix=r"\b", suffix=r"(?=[^\S\n]*\()"), Name.Builtin),
            (words(FUNCTIONS, prefix=r"(?<=function = )", suffix=r"\b"), Name.Builtin),
            (words(INITIALIZERS_IN_ORDER, prefix=r"\b", suffix=r"\b"), Name.Function),
            (r"(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?", Number),
            (r"[A-Za-z_]\w*", Name),
            (r"\*\*|//|[<>=!]=|[-+*/@%<>=]", Operator),
            (r"[()\[\]{},:;.]", Punctuation),
            (r".", Text),
        ]
    }
