"""Drives port 2222 with gRPC's own Python client: whatever it gets wrong, we do.

Usage: exec.py SOCKET GUEST_FOLDER PROTO_FOLDER
"""

import queue
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
from grpc_tools import protoc

PORT = 2222
# After which a check has failed, in seconds.
DEADLINE = 60
KIB = 1024


def main(path: str, guest: str, proto: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        services = Services(proto, folder)
        # What it would make of the socket's path is no name of a host, and refused.
        options = [("grpc.default_authority", "guest")]
        with Proxy(path, folder) as target, grpc.insecure_channel(target, options) as channel:
            grpc.channel_ready_future(channel).result(timeout=DEADLINE)
            programs = Programs(services.exec.ExecServiceStub(channel).Exec, services.messages)
            for check in (commands, input_, terminal, environment, crowd, cancel, refusals):
                check(programs, guest)
                print(check.__name__.rstrip("_"))
            stub = services.guest.GuestServiceStub(channel)
            commands(Programs(stub.Exec, services.messages), guest)
            files(stub, services.files, guest)
            print("guest")


class Services:
    """What the shipped definitions become for this client."""

    def __init__(self, proto: str, folder: str) -> None:
        out = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
        assert protoc.main(["protoc", f"-I{proto}", *out, "exec.proto", "guest.proto"]) == 0
        sys.path.insert(0, folder)
        self.messages: Any = import_module("exec_pb2")
        self.exec: Any = import_module("exec_pb2_grpc")
        self.files: Any = import_module("guest_pb2")
        self.guest: Any = import_module("guest_pb2_grpc")


class Proxy:
    """A socket for the client, which cannot say `CONNECT` itself."""

    def __init__(self, machine: str, folder: str) -> None:
        self.machine = machine
        self.path = str(Path(folder) / "proxy.sock")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> str:
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()
        return f"unix:{self.path}"

    def __exit__(self, *_: object) -> None:
        # Closing alone would not wake the thread that accepts.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            guest = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            guest.connect(self.machine)
            guest.sendall(b"CONNECT %d\n" % PORT)
            said = b""
            while not said.endswith(b"\n"):
                byte = guest.recv(1)
                assert byte, "the port was refused"
                said += byte
            assert said.startswith(b"OK "), said
            for source, target in ((client, guest), (guest, client)):
                threading.Thread(target=pipe, args=(source, target), daemon=True).start()


def pipe(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(64 * KIB):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One side has gone: so must the other.
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class Said:
    """All that a program said."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Call:
    """One program, one step at a time."""

    def __init__(self, method: Any, messages: Any, **start: Any) -> None:
        self.messages = messages
        self.requests: queue.Queue[Any] = queue.Queue(maxsize=4)
        self.say(start=messages.ExecStart(**start))
        self.responses = method(self.each_request(), timeout=DEADLINE)

    def each_request(self) -> Iterator[Any]:
        while (request := self.requests.get()) is not None:
            yield request

    def say(self, **request: Any) -> None:
        self.requests.put(self.messages.ExecRequest(**request))

    def end(self) -> None:
        """Ends the input."""
        self.requests.put(None)

    def until(self, text: bytes) -> bytes:
        """Output up to a text."""
        seen = b""
        while text not in seen:
            response = next(self.responses)
            assert response.WhichOneof("response") == "stdout", response
            seen += response.stdout
        return seen

    def rest(self) -> Said:
        """All that is still to come; the exit code is the last of it."""
        said = Said(-1, b"", b"")
        ended = False
        for response in self.responses:
            assert not ended, response
            kind = response.WhichOneof("response")
            if kind == "exit_code":
                said.exit_code, ended = response.exit_code, True
            else:
                setattr(said, kind, getattr(said, kind) + getattr(response, kind))
        assert ended, "no exit code came"
        # Whoever waits for requests may go; nobody does where there are some that nobody took.
        with suppress(queue.Full):
            self.requests.put_nowait(None)
        return said


class Programs:
    """Starts programs under one of the two names."""

    def __init__(self, method: Any, messages: Any) -> None:
        self.method = method
        self.messages = messages

    def start(self, *command: str, **start: Any) -> Call:
        return Call(self.method, self.messages, command=command, **start)

    def run(self, *command: str, stdin: bytes = b"", chunk: int = 64 * KIB, **start: Any) -> Said:
        call = self.start(*command, **start)

        def feed() -> None:
            for at in range(0, len(stdin), chunk):
                call.say(stdin=stdin[at : at + chunk])
            call.end()

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        return call.rest()


def commands(programs: Programs, guest: str) -> None:
    said = programs.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert said == Said(3, b"out\n", b"err\n"), said
    assert programs.run("true") == Said(0, b"", b"")
    assert programs.run("false").exit_code == 1
    assert programs.run("/etc/passwd").exit_code == 126
    assert programs.run("no-such-program").exit_code == 127
    assert programs.run("sh", "-c", "kill -9 $$").exit_code == 137
    assert programs.run("sleep", "600", timeout_seconds=1).exit_code == 124
    # All of it arrives, and in order.
    many = programs.run("seq", "1", "200000")
    assert many.stdout.split() == [b"%d" % number for number in range(1, 200001)]


def input_(programs: Programs, guest: str) -> None:
    assert programs.run("cat") == Said(0, b"", b"")
    assert programs.run("cat", stdin=b"hello") == Said(0, b"hello", b"")
    much = bytes(index % 251 for index in range(KIB * KIB))
    for chunk in (1000, 64 * KIB, KIB * KIB):
        said = programs.run("cat", stdin=much, chunk=chunk)
        assert (said.exit_code, said.stdout == much) == (0, True), chunk
    # An empty message is not the end.
    call = programs.start("cat")
    call.say(stdin=b"")
    call.say(stdin=b"more\n")
    call.until(b"more\n")
    call.end()
    assert call.rest() == Said(0, b"", b"")
    # A program need not wait for it.
    assert programs.run("true", stdin=much).exit_code == 0


def terminal(programs: Programs, guest: str) -> None:
    call = programs.start("sh", "-c", "test -t 0 && echo ready && read line && stty size", tty=True)
    call.until(b"ready")
    call.say(window_size=programs.messages.WindowSize(rows=33, cols=101))
    call.say(stdin=b"\n")
    said = call.rest()
    assert b"33 101" in said.stdout, said
    # A shell that is about to start a program may miss the signal: this one waits already when the inner one is ready.
    inner = "sleep 0.3; echo ready; exec sleep 600"
    call = programs.start("sh", "-c", f"sh -c '{inner}'; echo not reached", tty=True)
    call.until(b"ready")
    call.say(stdin=b"\x03")
    said = call.rest()
    assert said.exit_code == 130 and b"not reached" not in said.stdout, said
    said = programs.run("sh", "-c", "echo err >&2", tty=True)
    assert (b"err" in said.stdout, said.stderr) == (True, b""), said


def environment(programs: Programs, guest: str) -> None:
    said = programs.run("printenv", "NAME", env={"NAME": "värde 🦀"})
    assert said.stdout.decode() == "värde 🦀\n", said
    assert programs.run("pwd", cwd=guest).stdout.decode() == f"{guest}\n"
    assert programs.run("true", cwd=f"{guest}/missing").exit_code == 126


def crowd(programs: Programs, guest: str) -> None:
    def one(number: int) -> int:
        return int(programs.run("sh", "-c", f"sleep 0.2; echo {number}").stdout)

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(one, range(20))) == list(range(20))


def cancel(programs: Programs, guest: str) -> None:
    call = programs.start("sh", "-c", "sleep 600 & echo $$ $!; wait")
    pids = call.until(b"\n").decode().split()
    call.responses.cancel()
    call.end()
    # Time passes in the guest, whatever a call costs.
    gone = "n=0; while kill -0 $0 2>/dev/null; do n=$((n + 1)); test $n -lt 100 || exit 1; sleep 0.01; done"
    for pid in pids:
        assert programs.run("sh", "-c", gone, pid).exit_code == 0, pid


def refusals(programs: Programs, guest: str) -> None:
    def nothing() -> Iterator[Any]:
        yield programs.messages.ExecRequest(stdin=b"too early")

    refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: list(programs.method(nothing(), timeout=DEADLINE)))
    refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: programs.run("true", timeout_seconds=-1))
    assert programs.run("echo", "on").stdout == b"on\n"


def refused(code: grpc.StatusCode, act: Callable[[], object]) -> None:
    try:
        act()
    except grpc.RpcError as error:
        assert error.code() is code, error
    else:
        raise AssertionError(f"{code} did not come")


def files(stub: Any, messages: Any, guest: str) -> None:
    content = bytes(index % 253 for index in range(200 * KIB))

    def put(size: int, **start: Any) -> Any:
        def requests() -> Iterator[Any]:
            start_ = messages.CopyToGuestStart(path=f"{guest}/copied", mode=0o640, size=size, **start)
            yield messages.CopyToGuestRequest(start=start_)
            for at in range(0, len(content), 32 * KIB):
                yield messages.CopyToGuestRequest(data=content[at : at + 32 * KIB])
            yield messages.CopyToGuestRequest(end=messages.CopyToGuestEnd())

        return stub.CopyToGuest(requests(), timeout=DEADLINE)

    def get(path: str) -> list[Any]:
        request = messages.CopyFromGuestRequest(path=path)
        return list(stub.CopyFromGuest(request, timeout=DEADLINE))

    answer = put(len(content))
    assert answer.success and answer.bytes_written == len(content), answer
    header, *chunks, end = get(f"{guest}/copied")
    assert (header.header.path, header.header.mode, header.header.size) == ("copied", 0o640, len(content)), header
    assert b"".join(chunk.data for chunk in chunks) == content
    assert end.end.final, end
    answer = put(len(content) - 1)
    assert not answer.success and answer.error, answer
    [answer] = get(f"{guest}/missing")
    assert answer.error.message and answer.error.path == f"{guest}/missing", answer

    def describe(path: str) -> Any:
        return stub.StatPath(messages.StatPathRequest(path=path), timeout=DEADLINE)

    made = messages.CopyToGuestStart(path=f"{guest}/folder", mode=0o750, is_dir=True)
    for _ in range(2):
        answer = stub.CopyToGuest(iter([messages.CopyToGuestRequest(start=made)]), timeout=DEADLINE)
        assert answer.success, answer
    told = describe(f"{guest}/folder")
    assert (told.exists, told.is_dir, told.is_file, told.mode) == (True, True, False, 0o750), told
    told = describe(f"{guest}/copied")
    assert (told.is_file, told.size, told.mode) == (True, len(content), 0o640), told
    told = describe(f"{guest}/missing")
    assert (told.exists, told.error) == (False, ""), told


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
