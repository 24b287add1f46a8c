// JavaScript whose names persist: Node's own read-evaluate loop, driven over a socket.
//
// One JSON object a line each way. A request has an `id`, which its answer repeats, and an `op`: those of `tasks` below
// and `interrupt`, which has no answer. What a program prints goes straight to its standard output.
"use strict";

const { createHash } = require("node:crypto");
const fs = require("node:fs");
const inspector = require("node:inspector");
const net = require("node:net");
const repl = require("node:repl");
const stream = require("node:stream");
const util = require("node:util");
const v8 = require("node:v8");
const vm = require("node:vm");
const { internalBinding } = require("internal/test/binding");
const { isRecoverableError } = require("internal/repl/utils");
const generators = require("./generators.js");

const SHOWN = { depth: 4, maxArrayLength: 100, maxStringLength: 10000, breakLength: 100 };
const SHORT = { depth: 1, maxArrayLength: 8, maxStringLength: 80, breakLength: Infinity, compact: true };
const SHORT_CHARS = 100;
const VARIABLES = 2000;
const MATCHES = 500;

/** Thrown by `process.exit`: the session goes on. */
class Exit extends Error {
  constructor(code) {
    super(`process.exit(${code ?? ""})`);
    this.exitCode = Number(code ?? process.exitCode ?? 0) & 0xff;
  }
}

/** A stream that has written when it returns, and has no state that an interrupt half way could break. */
function printer(fd) {
  const printed = new stream.Writable({ write: (_chunk, _encoding, done) => done() });
  printed.fd = fd;
  printed.write = (chunk, encoding, done) => {
    const bytes = typeof chunk === "string" ? Buffer.from(chunk, typeof encoding === "string" ? encoding : "utf8") : chunk;
    for (let at = 0; at < bytes.length; ) at += fs.writeSync(fd, bytes, at);
    const called = typeof encoding === "function" ? encoding : done;
    if (called) process.nextTick(called);
    return true;
  };
  return printed;
}

const server = repl.start({
  prompt: "",
  // It is never typed to.
  input: new stream.PassThrough(),
  // Nor read.
  output: new stream.Writable({ write: (_chunk, _encoding, done) => done() }),
  terminal: false,
  useGlobal: true,
  breakEvalOnSigint: true,
});
process.exit = (code) => {
  throw new Exit(code);
};
// A second interrupt would end it.
server.close = () => {};
process.argv.length = 1;
for (const [name, fd] of Object.entries({ stdout: 1, stderr: 2 })) {
  Object.defineProperty(process, name, { value: printer(fd), configurable: true, enumerable: true });
}
generators.install();

// Names

const session = new inspector.Session();
session.connect();

/** What `let`, `const` and `class` have made: no property of anything. */
function lexical() {
  let names = [];
  session.post("Runtime.globalLexicalScopeNames", {}, (error, found) => {
    if (!error) names = found.names;
  });
  return names;
}

const ours = new Set([...Object.getOwnPropertyNames(globalThis), "_", "_error"]);

/** A name's value; undefined where it has none yet. */
function valueOf(name) {
  try {
    return vm.runInThisContext(name);
  } catch {
    return undefined;
  }
}

/** The user's names with their values. */
function named() {
  const own = Object.getOwnPropertyNames(globalThis).filter((name) => !ours.has(name));
  return new Map([...own, ...lexical()].map((name) => [name, valueOf(name)]));
}

// Cells

let busy = false;
// From here on SIGINT ends nothing but code that runs: code that waits hears of an interrupt on the socket.
internalBinding("contextify").startSigintWatchdog();

// What the engine throws where nobody catches it: by the cell that waits, or by what an earlier one has left.
let fails = null;
server._domain.removeAllListeners("error");
server._domain.on("error", (error) => {
  if (fails) fails(error);
  else process.stderr.write(`${told(error).error?.text ?? "Uncaught process.exit"}\n`);
});

function evaluate(code, name) {
  return new Promise((resolve, reject) => {
    fails = reject;
    server.eval(code, server.context, name, (error, value) => {
      if (error instanceof repl.Recoverable) reject(error.err);
      else if (error) reject(error);
      else resolve(value);
    });
  });
}

function told(error) {
  if (error instanceof Exit) return { exit: error.exitCode };
  if (error?.code === "ERR_SCRIPT_EXECUTION_INTERRUPTED") return { interrupted: true };
  if (!util.types.isNativeError(error) && !(error instanceof Error)) {
    return { error: { name: "Error", value: util.inspect(error, SHORT), text: `Uncaught ${util.inspect(error, SHOWN)}` } };
  }
  // The lines of this loop and of Node below it are nobody's.
  const lines = String(error.stack ?? error).split("\n");
  const end = lines.findIndex((line) => /^\s+at .*(node:(vm|repl|domain|internal)|\/kernels\/\w+\.js)/.test(line));
  const text = `Uncaught ${(end < 0 ? lines : lines.slice(0, end)).join("\n")}`;
  return { error: { name: String(error.name), value: String(error.message), text } };
}

/** Runs a cell. With `keep`, `_` is its value; without, it leaves no names behind. */
async function run({ code, name, keep, argv }) {
  if (argv) process.argv.splice(1, Infinity, ...argv);
  const before = named();
  const answer = {};
  busy = true;
  try {
    const value = await evaluate(code, name);
    if (value !== undefined) {
      answer.result = util.inspect(value, SHOWN);
      if (keep) server.last = value;
    }
  } catch (error) {
    try {
      Object.assign(answer, told(error));
    } catch (failure) {
      const text = `Uncaught error, which cannot be described: ${failure?.constructor?.name}`;
      answer.error = { name: "Error", value: "", text };
    }
  } finally {
    busy = false;
    fails = null;
  }
  const after = named();
  const changed = ([key, value]) => !before.has(key) || !Object.is(before.get(key), value);
  answer.bound = [...after].filter(changed).map(([key]) => key);
  answer.deleted = [...before.keys()].filter((key) => !after.has(key));
  return answer;
}

/** Runs code whose names nobody is to see. */
async function warm({ code, name }) {
  const { result: _result, bound: _bound, deleted: _deleted, ...answer } = await run({
    code: `await (async () => {\n${code}\n})()`,
    name,
    keep: false,
  });
  return answer;
}

/** Gives back what no name leads to, before a snapshot. */
function collect() {
  v8.setFlagsFromString("--expose-gc");
  vm.runInNewContext("gc")();
  return {};
}

// Questions

function complete({ code }) {
  return new Promise((resolve) => {
    server.completer(code.slice(code.lastIndexOf("\n") + 1), (_error, found) => {
      const [groups, replaced] = found ?? [[], ""];
      const dot = replaced.lastIndexOf(".") + 1;
      const matches = groups.filter((match) => match.startsWith(replaced)).slice(0, MATCHES);
      const kind = (match) => {
        if (dot > 0) return "instance";
        const value = valueOf(match);
        return typeof value !== "function" ? "instance" : isClass(value) ? "class" : "function";
      };
      resolve({ matches: matches.map((match) => ({ text: match.slice(dot), type: kind(match) })), length: replaced.length - dot });
    });
  });
}

const isClass = (value) => typeof value === "function" && /^class\b/.test(Function.prototype.toString.call(value));

function typeOf(value) {
  if (value === null) return "null";
  if (isClass(value)) return "class";
  return typeof value === "object" ? (value.constructor?.name ?? "Object") : typeof value;
}

function short(value) {
  let text;
  try {
    text = util.inspect(value, SHORT).split(/\s+/).join(" ");
  } catch (error) {
    text = `<${typeOf(value)}, whose inspection threw ${error?.name}>`;
  }
  return text.length > SHORT_CHARS ? `${text.slice(0, SHORT_CHARS - 1)}…` : text;
}

/** Equal sums in two copies of a machine mean equal values; there is none of what cannot be copied. */
function digestOf(value) {
  try {
    const source = typeof value === "function" ? Function.prototype.toString.call(value) : v8.serialize(value);
    return createHash("blake2b512").update(typeof value).update(source).digest("hex").slice(0, 32);
  } catch {
    return undefined;
  }
}

function variables({ digest }) {
  const found = [];
  for (const [name, value] of named()) {
    if (found.length === VARIABLES) break;
    const entry = { name, type: typeOf(value), repr: short(value) };
    if (ArrayBuffer.isView(value)) entry.size_bytes = value.byteLength;
    if (Array.isArray(value) || ArrayBuffer.isView(value)) entry.shape = [value.length ?? value.byteLength];
    if (digest) entry.digest = digestOf(value);
    found.push(entry);
  }
  return { variables: found };
}

/** What is known of a name, or of a name's property. */
function describe({ code, cursor, detail }) {
  const before = /[\w$.]*$/.exec(code.slice(0, cursor))[0];
  const source = (before + /^[\w$]*/.exec(code.slice(cursor))[0]).replace(/^\.+|\.+$/g, "");
  if (!/^[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*$/.test(source)) return { found: false, data: {} };
  let value;
  try {
    value = vm.runInThisContext(source);
  } catch {
    return { found: false, data: {} };
  }
  const lines = [`Type:      ${typeOf(value)}`];
  if (typeof value !== "function") lines.push(`Value:     ${detail ? util.inspect(value, SHOWN) : short(value)}`);
  if (typeof value?.length === "number") lines.push(`Length:    ${value.length}`);
  if (typeof value === "function") lines.push(`Source:\n${Function.prototype.toString.call(value)}`);
  return { found: true, data: { "text/plain": lines.join("\n") } };
}

function compiles(code) {
  try {
    new vm.Script(code);
    return null;
  } catch (error) {
    return error;
  }
}

function isComplete({ code }) {
  const told = (status, indent = "") => ({ status, indent });
  if (!code.trim()) return told("complete");
  const error = compiles(code);
  if (!error || !compiles(`(async () => {\n${code}\n})`) || !compiles(`(${code}\n)`)) return told("complete");
  if (!isRecoverableError(error, code)) return told("invalid");
  const last = code.trimEnd().split("\n").at(-1);
  return told("incomplete", /^\s*/.exec(last)[0] + (/[[({]$/.test(last) ? "  " : ""));
}

/** What every copy of a machine is to draw for itself. */
function reseed() {
  generators.reseed();
  return {};
}

// The conversation

const tasks = { run, warm, collect, complete, variables, describe, isComplete, reseed, settle: () => ({}) };
const socket = new net.Socket({ fd: Number(process.env.VMREPL_KERNEL_FD), readable: true, writable: true });
delete process.env.VMREPL_KERNEL_FD;
const send = (message) => socket.write(`${JSON.stringify(message)}\n`);
let unread = "";
let last = Promise.resolve();
socket.setEncoding("utf8");
socket.on("data", (text) => {
  const lines = (unread + text).split("\n");
  unread = lines.pop();
  for (const line of lines) {
    const task = JSON.parse(line);
    if (task.op === "interrupt") {
      if (busy) server.emit("SIGINT");
    } else {
      last = last.then(async () => send({ id: task.id, ...(await answerTo(task)) }));
    }
  }
});
// The runner has gone.
socket.on("close", () => process.reallyExit(0));

async function answerTo(task) {
  try {
    return await tasks[task.op](task);
  } catch (error) {
    return { failed: String(error) };
  }
}

/** What every cell needs is touched once. */
async function rehearse() {
  for (let round = 0; round < 3; round++) {
    await run({ code: "[1, 2].map((n) => ({ n, twice: n * 2 }))", name: "<warm-up>", keep: false });
    await run({ code: "await null; throw new Error('warm')", name: "<warm-up>", keep: false });
    await run({ code: "(", name: "<warm-up>", keep: false });
    isComplete({ code: "if (1) {" });
    await complete({ code: "Math.ro" });
    variables({ digest: true });
  }
  return { ready: process.version };
}

last = rehearse().then(send);
