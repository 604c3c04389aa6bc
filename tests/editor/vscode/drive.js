// docs/editors/vscode/extension.js with `vscode` and `vscode-languageclient` in miniature:
//
//     node drive.js extension.js TEXT.rnn '["python", "-m", "rnncc", "lsp"]'
//
// The server is the real one. Prints what a user would see: {"told": [...], "mistakes": [...]}.
const fs = require("node:fs");
const Module = require("node:module");

const [extension, file, setting] = process.argv.slice(2);
const told = [];
let client, server;

const vscode = {
  window: { showErrorMessage: (text) => told.push(text) },
  workspace: { getConfiguration: (of) => ({ get: (name) => ({ "rnncc.command": JSON.parse(setting) })[`${of}.${name}`] }) },
};

// What vscode-languageclient does with a server: start it, greet it, hand it a text, listen.
class LanguageClient {
  constructor(id, name, start, options) {
    Object.assign(this, { run: start, options, waiting: {}, mistakes: new Promise((resolve) => (this.found = resolve)) });
    client = this;
  }

  async start() {
    server = await this.run();
    const gone = new Promise((_, reject) => server.once("close", () => reject(new Error("gone"))));
    gone.catch(() => {});
    server.stdin.on("error", () => {});
    let bytes = Buffer.alloc(0);
    server.stdout.on("data", (more) => {
      bytes = Buffer.concat([bytes, more]);
      for (;;) {
        const end = bytes.indexOf("\r\n\r\n");
        const length = end < 0 ? 0 : Number(/Content-Length: (\d+)/.exec(bytes.subarray(0, end))[1]);
        if (end < 0 || bytes.length < end + 4 + length) return;
        this.read(JSON.parse(bytes.subarray(end + 4, end + 4 + length)));
        bytes = bytes.subarray(end + 4 + length);
      }
    });
    const [selector] = this.options.documentSelector;
    await Promise.race([gone, this.ask("initialize", { processId: process.pid, rootUri: null, capabilities: {} })]);
    this.say("initialized", {});
    const text = fs.readFileSync(file, "utf-8");
    this.say("textDocument/didOpen", { textDocument: { uri: `file://${file}`, languageId: selector.language, version: 1, text } });
    await Promise.race([gone, this.mistakes]);
  }

  async stop() {
    await this.ask("shutdown", null);
    this.say("exit", null);
    await new Promise((resolve) => server.once("close", resolve));
  }

  say(method, params, id) {
    const text = JSON.stringify({ jsonrpc: "2.0", id, method, params });
    server.stdin.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  }

  ask(method, params) {
    return new Promise((resolve) => {
      this.waiting[method] = resolve;
      this.say(method, params, method);
    });
  }

  read(message) {
    if (message.method === "textDocument/publishDiagnostics") this.found(message.params.diagnostics);
    else if (message.id && !message.method) this.waiting[message.id](message.result);
  }
}

const stand = { vscode, "vscode-languageclient/node": { LanguageClient, CloseAction: { DoNotRestart: 1 }, ErrorAction: { Continue: 1 } } };
const load = Module._load;
Module._load = (name, ...rest) => stand[name] ?? load(name, ...rest);

(async () => {
  const { activate, deactivate } = require(extension);
  await activate();
  const running = server && server.exitCode === null && !told.length;
  const mistakes = running ? (await client.mistakes).map((m) => [m.code, m.range.start.line + 1]) : [];
  if (running) await deactivate();
  process.stdout.write(JSON.stringify({ told, mistakes }));
  process.exit(0);
})();
