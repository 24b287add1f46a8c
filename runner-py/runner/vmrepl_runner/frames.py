"""Frames on the private socket to the agent, and the JSON inside them.

`kind u8, connection u32, length u32, payload`, numbers big-endian.
"""

import json
import math
import socket
import struct
import threading
from typing import Any

REQUEST, CLOSED, RESUMED, EXIT = 1, 2, 3, 4
READY, LINE, STARTED, DONE, RESUMED_ACK, RECEIVED = 16, 17, 18, 19, 20, 21

PAYLOAD_BYTES_MAX = (16 << 20) + (64 << 10)

_HEADER = struct.Struct(">BII")
_LENGTH = struct.Struct(">I")
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


def to_json(value: Any) -> bytes:
    """Encodes strictly: the reader refuses lone surrogates, NaN and infinities."""
    try:
        return _encoder.encode(value).encode()
    except (ValueError, TypeError):
        return _encoder.encode(_clean(value)).encode()


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(_clean(str(key))): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    return _clean(str(value))


class Channel:
    """The runner's end of the socket. Any thread may send; one thread receives."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()

    def send(self, kind: int, connection: int, payload: bytes) -> None:
        data = _HEADER.pack(kind, connection, len(payload)) + payload
        with self._lock:
            self._socket.sendall(data)

    def line(self, connection: int, value: Any) -> None:
        self.send(LINE, connection, to_json(value) + b"\n")

    def done(self, connection: int, prefix: bytes, suffix: bytes) -> None:
        self.send(DONE, connection, _LENGTH.pack(len(prefix)) + prefix + suffix)

    def receive(self) -> tuple[int, int, bytes] | None:
        """The next frame; None when the agent is gone."""
        header = self._exactly(_HEADER.size)
        if header is None:
            return None
        kind, connection, length = _HEADER.unpack(header)
        if length > PAYLOAD_BYTES_MAX:
            return None
        payload = self._exactly(length)
        return None if payload is None else (kind, connection, payload)

    def _exactly(self, count: int) -> bytes | None:
        if count == 0:
            return b""
        data = self._socket.recv(count, socket.MSG_WAITALL)
        if len(data) == count:
            return data
        parts = bytearray(data)
        while len(parts) < count:
            data = self._socket.recv(count - len(parts))
            if not data:
                return None
            parts += data
        return bytes(parts)

    def close(self) -> None:
        self._socket.close()
