"""A runner that lies: it tests what the agent does when the real one could not have said it."""

import os
import socket
import struct
import sys
import time

sock = socket.socket(fileno=int(os.environ["VMREPL_RUNNER_FD"]))
lie = os.environ["LIE"]


def frame(kind: int, payload: bytes, connection: int = 0) -> bytes:
    return struct.pack(">BII", kind, connection, len(payload)) + payload


def request() -> int:
    """The connection of the next request."""
    while True:
        kind, connection, length = struct.unpack(">BII", sock.recv(9, socket.MSG_WAITALL))
        if length:
            sock.recv(length, socket.MSG_WAITALL)
        if kind == 1:
            return int(connection)


def done(connection: int, prefix: bytes = b'{"exit_code": 0, ') -> bytes:
    return frame(19, struct.pack(">I", len(prefix)) + prefix + b'"tables": []}', connection)


if lie == "dies at once":
    sys.exit(7)
if lie == "garbage at once":
    sock.sendall(b"\xff" * 100)
    time.sleep(1000)
sock.sendall(frame(16, b'{"python": "3.99", "more": [1]}'))
who = request()
LIES = {
    "unknown kind": frame(99, b""),
    "too long": struct.pack(">BII", 17, who, 0xFFFFFFFF),
    "a request": frame(1, b"{}", who),
    "done without lengths": frame(19, b"\x00", who),
    "done with a wrong length": frame(19, b"\xff\xff\xff\xff{}", who),
    "started is no json": frame(18, b"nonsense", who),
    "received is no object": frame(21, b"[]", who),
    "ack of nothing": frame(20, b"{}", who),
}
if lie in LIES:
    sock.sendall(LIES[lie])
elif lie == "half a frame":
    sock.sendall(frame(17, b"x" * 1000, who)[:500])
    os._exit(0)
elif lie == "closes its socket":
    os.close(sock.detach())
elif lie == "answers strangers":
    # For connections that never were, cells that never started, and twice.
    sock.sendall(frame(17, b'{"exit_code": 0}\n', 4000) + frame(18, b'{"cell": "a"}', 4000) + done(4000) + done(4000))
    sock.sendall(frame(20, b'{"generation": 99}') + frame(21, b'{"id": null, "op": "run"}', 4000))
    sock.sendall(frame(18, b'{"cell": "b", "output_bytes": 18446744073709551615}', who))
    sock.sendall(frame(18, b'{"cell": "c", "stream": true}', who) + done(who))
elif lie == "one byte at a time":
    for byte in frame(18, b'{"cell": "a"}', who) + done(who):
        sock.sendall(bytes([byte]))
elif lie == "a flood of lines":
    line = frame(17, b'{"type": "display", "data": "' + b"x" * 10_000_000 + b'"}\n', who)
    sock.sendall(frame(18, b'{"cell": "a", "stream": true}', who))
    for _ in range(20):
        sock.sendall(line)
    sock.sendall(done(who, b'{"type": "done", "exit_code": 0, '))
time.sleep(1000)
