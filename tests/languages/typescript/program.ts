// Does what the first line of its input says; see the folder's README.
import { readFileSync, writeFileSync, writeSync } from "fs";
import { connect } from "net";
import { spawn } from "child_process";

// What only TypeScript has: an enumeration, an interface, a type parameter, a parameter property.
enum Word { Hello = "hello", Echo = "echo", Exit = "exit", Raise = "raise", Spin = "spin", Memory = "memory",
  Fork = "fork", Flood = "flood", Write = "write", Net = "net", Child = "child" }

interface Command { word: Word; argument?: string; rest: Buffer }

class Target {
  constructor(readonly host: string, readonly port: number) {}
  toString(): string { return `${this.host}:${this.port}`; }
}

function each<T>(values: readonly T[], act: (value: T) => void): void {
  for (const value of values) act(value);
}

function read(): Command {
  const input = readFileSync(0);
  const end = input.indexOf(10);
  const [word, argument] = (end < 0 ? input : input.subarray(0, end)).toString().split(" ");
  return { word: word as Word, argument, rest: input.subarray(end + 1) };
}

function write(folder: string): void {
  const path = `${folder}/was-here`;
  try {
    writeFileSync(path, "x");
    console.log("WROTE", path);
  } catch {
    console.log("denied", path);
  }
}

function net(target: Target): void {
  const socket = connect({ host: target.host, port: target.port, timeout: 2000 });
  const say = (word: "CONNECTED" | "denied") => {
    console.log(word, String(target));
    socket.removeAllListeners();
    socket.on("error", () => {});
    socket.destroy();
  };
  socket.on("connect", () => say("CONNECTED"));
  socket.on("timeout", () => say("denied"));
  socket.on("error", () => say("denied"));
}

// What a process comes to is told by the loop of events, so each next one waits for a turn of it.
function fork(): void {
  spawn("sleep", ["1000000"], { stdio: "inherit" }).on("error", () => {
    console.log("refused");
    process.exit(0);
  });
  setImmediate(fork);
}

function flood(): never {
  const line = "x".repeat(65535) + "\n";
  for (;;) {
    try {
      writeSync(1, line);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
    }
  }
}

const { word, argument, rest } = read();
switch (word) {
  case Word.Hello: console.log("hello"); break;
  case Word.Echo: process.stdout.write(rest); break;
  case Word.Exit: process.exit(Number(argument));
  case Word.Raise: throw new Error("as asked");
  case Word.Spin: for (;;);
  case Word.Memory: { const held: Buffer[] = []; for (;;) held.push(Buffer.alloc(1 << 22, 120)); }
  case Word.Fork: fork(); break;
  case Word.Flood: flood();
  case Word.Write: each(["", "/etc", "/usr", "/home", "/home/user"], write); break;
  case Word.Net: each([new Target("1.1.1.1", 80), new Target("127.0.0.1", 22)], net); break;
  case Word.Child:
    spawn("sleep", ["1000000"], { detached: true, stdio: "inherit" }).unref();
    console.log("left");
    break;
  default: throw new Error(`no such command: ${word as string}`);
}
