"""Frames on the private socket to the agent.

`kind u8, connection u32, length u32, payload`, numbers big-endian. Any thread may send; one receives.
"""

import fcntl
import os
import struct
from collections.abc import Callable
from threading import Lock

from vmrepl_runner import limits

REQUEST, CLOSED, RESUMED, EXIT, TAKEN, SIGNALLED, EXCEEDED = 1, 2, 3, 4, 5, 6, 7
READY, LINE, STARTED, DONE, RESUMED_ACK, RECEIVED = 16, 17, 18, 19, 20, 21

_HEADER = struct.Struct(">BII")
_pack = _HEADER.pack
_pack_done = struct.Struct(">BIII").pack
_READ_BYTES = 1 << 16
_FD_FROM = 900
"""Above what programs use, and what loops that close low descriptors reach."""


def frame(kind: int, connection: int, payload: bytes) -> bytes:
    """One frame's bytes."""
    return _pack(kind, connection, len(payload)) + payload


def done(connection: int, prefix: bytes, suffix: bytes) -> bytes:
    """A cell's answer, but for its output, which the agent puts between the two."""
    before = len(prefix)
    return _pack_done(DONE, connection, 4 + before + len(suffix), before) + prefix + suffix


class Link:
    """The runner's end of the socket, or of anything with a descriptor that takes bytes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.forked = False
        self._lock = Lock()
        self._held: bytes | bytearray = b""

    @classmethod
    def inherit(cls, number: int) -> "Link":
        """Takes over descriptor `number`, out of the way of user code and closed in programs it starts."""
        try:
            high = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _FD_FROM)
        except (OSError, ValueError):
            high = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 64)
        os.close(number)
        link = cls(high)
        os.register_at_fork(after_in_child=link.abandon)
        return link

    def send(self, data: bytes) -> None:
        """Writes whole frames. A forked child writes nothing."""
        with self._lock:
            if self.forked:
                return
            count = os.write(self.fd, data)
            while count < len(data):
                data = data[count:]
                count = os.write(self.fd, data)

    def abandon(self) -> None:
        """In a child that user code forked: the conversation is the parent's."""
        already, self.forked = self.forked, True
        self._lock = Lock()
        if not already:
            os.close(self.fd)

    def receive(self, before: Callable[[], None]) -> tuple[int, int, bytes] | None:
        """The next frame, or None when the agent is gone. `before` is called when a read may block."""
        held = self._held
        while True:
            if len(held) >= _HEADER.size:
                kind, connection, length = _HEADER.unpack_from(held)
                if length > limits.FRAME_BYTES:
                    return None
                end = _HEADER.size + length
                if len(held) >= end:
                    self._held = held[end:]
                    payload = held[_HEADER.size : end]
                    return kind, connection, payload if type(payload) is bytes else bytes(payload)
            before()
            try:
                data = os.read(self.fd, _READ_BYTES)
            except OSError:
                return None
            if not data:
                return None
            if not held:
                held = self._held = data
                continue
            # A long frame comes in pieces.
            if type(held) is bytes:
                held = self._held = bytearray(held)
            held += data
