"""`rnncc lsp`: the language server, on stdin and stdout (pygls).

What is wrong is told as one types: each change is looked at when no other one has come within
`_PAUSE`. All answers are of the text as the editor has it.

Non-Goals: what the answers are (`document`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from lsprotocol import types
from pygls.lsp.server import LanguageServer

from rnncc.common.version import __version__
from rnncc.editor.document import Document, Offer
from rnncc.frontend.diagnostics import SpecError
from rnncc.frontend.formatting import formatted
from rnncc.ir.program import Span

_PAUSE = 0.02  # seconds
_KINDS = {
    "kind": types.CompletionItemKind.Class,
    "function": types.CompletionItemKind.Function,
    "initializer": types.CompletionItemKind.Constructor,
    "keyword": types.CompletionItemKind.Keyword,
    "value": types.CompletionItemKind.Variable,
    "size": types.CompletionItemKind.TypeParameter,
    "option": types.CompletionItemKind.Property,
    "rate": types.CompletionItemKind.Property,
}


class CellServer(LanguageServer):
    """Texts that are open, by their addresses, as they were last looked at."""

    def __init__(self) -> None:
        super().__init__("rnncc", __version__)
        self._looked: dict[str, tuple[str, Document]] = {}

    def looked_at(self, uri: str) -> Document:
        """The text as the editor has it now."""
        source = self.workspace.get_text_document(uri).source
        before = self._looked.get(uri)
        if before is None or before[0] != source:
            before = source, Document(source, uri.rpartition("/")[2])
            self._looked[uri] = before
        return before[1]

    def forget(self, uri: str) -> None:
        self._looked.pop(uri, None)
        self.tell(uri, [])

    def tell(self, uri: str, diagnostics: list[types.Diagnostic]) -> None:
        self.text_document_publish_diagnostics(
            types.PublishDiagnosticsParams(uri=uri, diagnostics=diagnostics)
        )

    def place(self, document: Document, position: types.Position) -> tuple[int, int]:
        """An editor's position, in its units, as line and column."""
        if position.line >= len(document.lines):
            return len(document.lines), len(document.lines[-1]) + 1
        at = self.workspace.position_codec.position_from_client_units(document.lines, position)
        return at.line + 1, at.character + 1

    def range_of(self, document: Document, span: Span) -> types.Range:
        line = min(span.line, len(document.lines)) - 1
        ends = (min(col - 1, len(document.lines[line])) for col in (span.col, span.end))
        codec = self.workspace.position_codec
        begin, end = (
            codec.position_to_client_units(document.lines, types.Position(line, at)) for at in ends
        )
        return types.Range(begin, end)

    def diagnostics_of(self, uri: str) -> list[types.Diagnostic]:
        document = self.looked_at(uri)
        return [
            types.Diagnostic(
                range=self.range_of(document, d.span),
                message="\n".join(filter(None, (d.message, *d.notes, d.help))),
                severity=types.DiagnosticSeverity.Error,
                code=d.code,
                source="rnncc",
            )
            for d in document.diagnostics
        ]


def serve() -> None:
    """Answers until the editor says that it is over."""
    server_of_cells().start_io()


def server_of_cells() -> CellServer:
    """With all its answers."""
    server = CellServer()
    _watching(server)
    _answering(server)
    return server


def _watching(server: CellServer) -> None:
    """Texts come, change and go."""

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        uri = params.text_document.uri
        server.tell(uri, server.diagnostics_of(uri))

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    async def changed(params: types.DidChangeTextDocumentParams) -> None:
        uri, version = params.text_document.uri, params.text_document.version
        await asyncio.sleep(_PAUSE)
        current = server.workspace.text_documents.get(uri)
        if current is not None and current.version == version:
            server.tell(uri, server.diagnostics_of(uri))

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        server.forget(params.text_document.uri)


def _answering(server: CellServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_HOVER)
    def hover(params: types.HoverParams) -> types.Hover | None:
        document = server.looked_at(params.text_document.uri)
        word = document.word(*server.place(document, params.position))
        said = document.hover(word) if word else ""
        if not word or not said:
            return None
        content = types.MarkupContent(types.MarkupKind.Markdown, said)
        return types.Hover(content, server.range_of(document, word.span))

    @server.feature(types.TEXT_DOCUMENT_DEFINITION)
    def definition(params: types.DefinitionParams) -> list[types.Location]:
        uri = params.text_document.uri
        document = server.looked_at(uri)
        word = document.word(*server.place(document, params.position))
        spans = document.definitions(word) if word else []
        return [types.Location(uri, server.range_of(document, s)) for s in spans]

    @server.feature(
        types.TEXT_DOCUMENT_COMPLETION,
        types.CompletionOptions(trigger_characters=[":", "=", "["]),
    )
    def completion(params: types.CompletionParams) -> list[types.CompletionItem]:
        document = server.looked_at(params.text_document.uri)
        return [*map(_item, document.offers(*server.place(document, params.position)))]

    @server.feature(
        types.TEXT_DOCUMENT_CODE_ACTION,
        types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix]),
    )
    def mends(params: types.CodeActionParams) -> list[types.CodeAction]:
        return _actions(server, params)

    @server.feature(types.TEXT_DOCUMENT_FORMATTING)
    def layout(params: types.DocumentFormattingParams) -> list[types.TextEdit] | None:
        uri = params.text_document.uri
        source = server.workspace.get_text_document(uri).source
        try:
            text = formatted(source)
        except SpecError:  # the editor has been told
            return None
        whole = types.Range(types.Position(0, 0), types.Position(source.count("\n") + 1, 0))
        return [types.TextEdit(whole, text)] if text != source else []


def _item(offer: Offer) -> types.CompletionItem:
    return types.CompletionItem(
        offer.name,
        kind=_KINDS.get(offer.kind, types.CompletionItemKind.Field),
        detail=offer.kind,
        documentation=offer.meaning or None,
    )


def _actions(server: CellServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    uri = params.text_document.uri
    document = server.looked_at(uri)
    said: dict[Any, types.Diagnostic] = dict(
        zip(document.diagnostics, server.diagnostics_of(uri), strict=True)
    )
    found = document.mends(params.range.start.line + 1, params.range.end.line + 1)
    return [
        types.CodeAction(
            mend.title,
            kind=types.CodeActionKind.QuickFix,
            diagnostics=[said[mend.diagnostic]],
            edit=types.WorkspaceEdit(
                {uri: [types.TextEdit(server.range_of(document, mend.span), mend.text)]}
            ),
        )
        for mend in found
    ]
