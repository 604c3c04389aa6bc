"""The language server, asked by pygls's own client over stdin and stdout."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.paths import ROOT

pytest.importorskip("pygls.lsp.server", reason="needs pygls 2")

from lsprotocol import types
from pygls.lsp.client import LanguageClient

URI = "file:///mine.rnn"
TEXT = """cell: Mine
features: size
units: size
x: input[features]
h: state[units]
kernel: weight[features, units]
U: weight[units, units]
h[t] = tanh(x[t] @ kernel + h[t-1] @ U)  # 𝛼
return h[t]
"""
DOCUMENT = types.TextDocumentIdentifier(URI)


class Editor:
    """A client that keeps what it is told."""

    def __init__(self) -> None:
        self.client = LanguageClient("tests", "1")
        self.told: asyncio.Queue[list[types.Diagnostic]] = asyncio.Queue()
        self.version = 1

        @self.client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def told(params: types.PublishDiagnosticsParams) -> None:
            self.told.put_nowait(list(params.diagnostics))

    async def start(self) -> types.InitializeResult:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        await self.client.start_io(sys.executable, "-m", "rnncc", "lsp", "--stdio", env=environment)
        result = await self.client.initialize_async(
            types.InitializeParams(capabilities=types.ClientCapabilities())
        )
        self.client.initialized(types.InitializedParams())
        return result

    async def stop(self) -> int | None:
        await self.client.shutdown_async(None)
        self.client.exit(None)
        process = self.client._server
        assert process is not None
        await asyncio.wait_for(process.wait(), 20)
        await self.client.stop()
        return process.returncode

    async def open(self, text: str) -> list[types.Diagnostic]:
        self.client.text_document_did_open(
            types.DidOpenTextDocumentParams(types.TextDocumentItem(URI, "rnn", 1, text))
        )
        return await asyncio.wait_for(self.told.get(), 20)

    def change(self, text: str, where: types.Range | None = None) -> None:
        self.version += 1
        change: Any = (
            types.TextDocumentContentChangePartial(where, text)
            if where
            else types.TextDocumentContentChangeWholeDocument(text)
        )
        self.client.text_document_did_change(
            types.DidChangeTextDocumentParams(
                types.VersionedTextDocumentIdentifier(self.version, URI), [change]
            )
        )

    async def next(self) -> list[types.Diagnostic]:
        return await asyncio.wait_for(self.told.get(), 20)


def range_of(line: int, begin: int, end: int) -> types.Range:
    return types.Range(types.Position(line, begin), types.Position(line, end))


async def conversation() -> None:
    editor = Editor()
    offered = (await editor.start()).capabilities
    assert offered.hover_provider and offered.definition_provider and offered.completion_provider
    assert offered.code_action_provider and offered.document_formatting_provider
    ask = editor.client

    assert await editor.open(TEXT) == []
    # What is typed: `@ kernelx`, one change of a piece of the text.
    editor.change("kernelx", range_of(7, 19, 25))
    (unknown, unused) = sorted(await editor.next(), key=lambda d: str(d.code))
    assert (unknown.code, unknown.range) == ("E301", range_of(7, 19, 26))
    assert unused.code == "E316"
    assert "did you mean kernel?" in unknown.message
    # Many changes at once are looked at once, and what is told is of the last.
    for text in ("kernel", "kernelu", "kerneluu"):
        editor.change(TEXT.replace("@ kernel ", f"@ {text} "))
    (unknown, _) = sorted(await editor.next(), key=lambda d: str(d.code))
    assert unknown.range == range_of(7, 19, 27)
    assert editor.told.empty()

    actions = await ask.text_document_code_action_async(
        types.CodeActionParams(DOCUMENT, unknown.range, types.CodeActionContext([unknown]))
    )
    (action,) = [a for a in actions or [] if isinstance(a, types.CodeAction)]
    assert action.title == "write kernel"
    assert action.edit and action.edit.changes
    assert [*action.edit.changes[URI]] == [types.TextEdit(range_of(7, 19, 27), "kernel")]
    editor.change("kernel", range_of(7, 19, 27))
    assert await editor.next() == []

    hover = await ask.text_document_hover_async(types.HoverParams(DOCUMENT, types.Position(7, 19)))
    assert hover and "weight of shape `[features, units]`" in hover.contents.value  # type: ignore
    assert hover.range == range_of(7, 19, 25)
    found = await ask.text_document_definition_async(
        types.DefinitionParams(DOCUMENT, types.Position(7, 28))
    )
    assert [place.range.start.line for place in found or []] == [4, 7]  # type: ignore[union-attr]
    offers: Any = await ask.text_document_completion_async(
        types.CompletionParams(DOCUMENT, types.Position(7, 12))
    )
    assert {"tanh", "kernel", "x", "units"} <= {o.label for o in offers}
    # Columns are counted as the editor does: behind a letter of two units.
    editor.change('z = "𝛼" + kernelx\n', types.Range(types.Position(7, 0), types.Position(7, 0)))
    far = next(d for d in await editor.next() if d.code == "E301")
    assert far.range == range_of(7, 11, 18)

    editor.change(TEXT.replace(" + ", "+").replace("\n", "\r\n"))
    assert await editor.next() == []
    edits = await ask.text_document_formatting_async(
        types.DocumentFormattingParams(DOCUMENT, types.FormattingOptions(4, True))
    )
    assert edits and edits[0].new_text == TEXT
    editor.change("cell: (")
    assert await editor.next()
    assert not await ask.text_document_formatting_async(
        types.DocumentFormattingParams(DOCUMENT, types.FormattingOptions(4, True))
    )
    ask.text_document_did_close(types.DidCloseTextDocumentParams(DOCUMENT))
    assert await editor.next() == []
    assert await editor.stop() == 0


def test_a_conversation() -> None:
    asyncio.run(conversation())


def test_without_pygls(monkeypatch: pytest.MonkeyPatch, rnncc_cli: Callable[..., Any]) -> None:
    monkeypatch.setitem(sys.modules, "pygls.lsp.server", None)
    ran = rnncc_cli("lsp")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "rnncc: the language server needs pygls 2: pip install 'rnncc[lsp]'\n"
