// Does what the first line of its input says; see the folder's README.
const { readFileSync, writeFileSync } = require("fs");
const { connect } = require("net");
const { spawn } = require("child_process");

function write() {
  for (const folder of ["", "/etc", "/usr", "/home", "/home/user"]) {
    const path = folder + "/was-here";
    try {
      writeFileSync(path, "x");
      console.log("WROTE", path);
    } catch {
      console.log("denied", path);
    }
  }
}

function net() {
  for (const [host, port] of [["1.1.1.1", 80], ["127.0.0.1", 22]]) {
    const socket = connect({ host, port, timeout: 2000 });
    const say = (word) => {
      console.log(word, host + ":" + port);
      socket.removeAllListeners();
      socket.on("error", () => {});
      socket.destroy();
    };
    socket.on("connect", () => say("CONNECTED"));
    socket.on("timeout", () => say("denied"));
    socket.on("error", () => say("denied"));
  }
}

function memory() {
  const held = [];
  for (;;) held.push(Buffer.alloc(1 << 22, 120));
}

// What a process comes to is told by the loop of events, so each next one waits for a turn of it.
function fork() {
  const child = spawn("sleep", ["1000000"], { stdio: "inherit" });
  child.on("error", () => {
    console.log("refused");
    process.exit(0);
  });
  setImmediate(fork);
}

function flood() {
  const line = "x".repeat(65535) + "\n";
  for (;;) {
    try {
      require("fs").writeSync(1, line);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

const input = readFileSync(0);
const end = input.indexOf(10);
const [word, argument] = (end < 0 ? input : input.subarray(0, end)).toString().split(" ");
switch (word) {
  case "hello": console.log("hello"); break;
  case "echo": process.stdout.write(input.subarray(end + 1)); break;
  case "exit": process.exit(Number(argument));
  case "raise": throw new Error("as asked");
  case "spin": for (;;);
  case "memory": memory(); break;
  case "fork": fork(); break;
  case "flood": flood(); break;
  case "write": write(); break;
  case "net": net(); break;
  case "child":
    spawn("sleep", ["1000000"], { detached: true, stdio: "inherit" }).unref();
    console.log("left");
    break;
  default: throw new Error("no such command: " + word);
}
