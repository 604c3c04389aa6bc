// Starts `rnncc lsp` for .rnn files. Without it colours are there all the same.
const { workspace } = require("vscode");
const { LanguageClient, TransportKind } = require("vscode-languageclient/node");

let client;

function activate() {
  const [command, ...args] = workspace.getConfiguration("rnncc").get("command");
  client = new LanguageClient(
    "rnncc",
    "rnncc",
    { command, args, transport: TransportKind.stdio },
    { documentSelector: [{ language: "rnn" }] },
  );
  return client.start();
}

function deactivate() {
  return client?.stop();
}

module.exports = { activate, deactivate };
