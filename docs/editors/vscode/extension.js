// Starts `rnncc lsp` for .rnn files. Without it colours are there all the same.
const { spawn } = require("node:child_process");
const { window, workspace } = require("vscode");
const { CloseAction, ErrorAction, LanguageClient } = require("vscode-languageclient/node");

let client;

async function activate() {
  const command = workspace.getConfiguration("rnncc").get("command");
  const texts = Array.isArray(command) && command.length && command.every((c) => c && typeof c === "string");
  if (!texts) {
    const given = JSON.stringify(command);
    window.showErrorMessage(`rnncc.command is ${given}: write a list of texts, such as ["rnncc", "lsp"].`);
    return;
  }
  let server;
  try {
    server = await started(command);
  } catch (error) {
    const mend = "Install it (pip install 'rnncc[lsp]'), or say in the setting rnncc.command where it is.";
    window.showErrorMessage(`${command.join(" ")} can't be started: ${error.message}. ${mend}`);
    return;
  }
  client = new LanguageClient("rnncc", "rnncc", () => Promise.resolve(server), {
    documentSelector: [{ language: "rnn" }],
    // What the server said last is shown once, in place of the client's own words.
    errorHandler: {
      error: () => ({ action: ErrorAction.Continue, handled: true }),
      closed: () => ({ action: CloseAction.DoNotRestart, handled: true }),
    },
    initializationFailedHandler: () => false,
  });
  await client.start().catch(() => {}); // it has been told when the server ended
}

// The process, once it runs. One that ends badly later, as without pygls, has said why on stderr.
function started([command, ...args]) {
  return new Promise((resolve, reject) => {
    const server = spawn(command, args);
    let said = "";
    server.stderr.on("data", (text) => (said = (said + text).slice(-1000)));
    server.once("error", reject);
    server.once("spawn", () => {
      resolve(server);
      server.once("close", (code) => {
        if (code) {
          window.showErrorMessage(`The language server ended with ${code}. ${said.trim()}`);
        }
      });
    });
  });
}

function deactivate() {
  return client?.stop();
}

module.exports = { activate, deactivate };
