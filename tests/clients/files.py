"""Drives port 1024 with the host client of another project, unmodified: whatever it gets wrong, we do.

Usage: files.py SOCKET GUEST_FOLDER LOCAL_FOLDER LARGE_BYTES
"""

import hashlib
import socket
import sys
import threading
import time
from pathlib import Path

from smolvm.comm import protocol
from smolvm.comm.vsock_channel import VsockChannel
from smolvm.exceptions import OperationTimeoutError, SmolVMError

KIB = 1024
SIZES = [
    0,
    1,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    16 * KIB * KIB - 1,
    16 * KIB * KIB,
    16 * KIB * KIB + 1,
]


def main(path: str, guest: str, local: Path, large_bytes: int) -> None:
    channel = VsockChannel.from_uds(path)
    channel.wait_ready(timeout=30)
    assert channel.connected
    checks = {
        "commands": commands,
        "files": files,
        "large": lambda *of: large(*of, large_bytes),
        "targets": targets,
        "refusals": refusals,
        "crowd": crowd,
    }
    for name, check in checks.items():
        check(channel, guest, local)
        print(name)


def commands(channel: VsockChannel, guest: str, local: Path) -> None:
    said = channel.run("echo out; echo err >&2; exit 3")
    assert (said.exit_code, said.stdout, said.stderr) == (3, "out\n", "err\n"), said
    assert channel.run("printf 'é 🦀'", shell="raw").stdout == "é 🦀"
    assert channel.run("no-such-program", shell="raw").exit_code == 127
    assert channel.run("kill -9 $$", shell="raw").exit_code == -9
    # All of it arrives, and in order.
    many = channel.run("seq 1 200000", timeout=60)
    assert many.stdout.split() == [str(number) for number in range(1, 200001)]
    began = time.monotonic()
    try:
        channel.run(f"sleep 600 & echo $! > {guest}/child; sleep 600", timeout=1)
    except OperationTimeoutError:
        assert time.monotonic() - began < 20
    else:
        raise AssertionError("no timeout")
    gone = channel.run(f"kill -0 $(cat {guest}/child) 2>&1 && echo lives", shell="raw")
    assert "lives" not in gone.stdout, gone


def files(channel: VsockChannel, guest: str, local: Path) -> None:
    for size in SIZES:
        source, back = local / f"source-{size}", local / "deep" / f"back-{size}"
        source.write_bytes(bytes((index * 7 + size) % 251 for index in range(min(size, 4096))) * (size // 4096 + 1))
        with source.open("r+b") as file:
            file.truncate(size)
        source.chmod(0o640)
        channel.put_file(source, f"{guest}/file")
        told = channel.run(
            f"sha256sum < {guest}/file; stat -c %a {guest}/file",
            shell="raw",
            timeout=60,
        )
        expected = hashlib.sha256(source.read_bytes()).hexdigest()
        assert told.stdout.split() == [expected, "-", "640"], (size, told)
        assert channel.get_file(f"{guest}/file", back) == back
        assert back.read_bytes() == source.read_bytes(), size
        assert back.stat().st_mode & 0o777 == 0o640
        source.unlink()
        back.unlink()


def large(channel: VsockChannel, guest: str, local: Path, size: int) -> None:
    """There and back; no two chunks have the same bytes, so none can take another's place."""
    source, back = local / "source-large", local / "back-large"
    with source.open("wb") as file:
        for number in range(size // protocol.CHUNK_SIZE):
            file.write(number.to_bytes(8, "big") * (protocol.CHUNK_SIZE // 8))
        file.write(b"x" * (size % protocol.CHUNK_SIZE))
    assert source.stat().st_size == size
    channel.put_file(source, f"{guest}/large")
    assert channel.get_file(f"{guest}/large", back) == back
    with source.open("rb") as sent, back.open("rb") as got:
        sums = [hashlib.file_digest(file, "sha256").hexdigest() for file in (sent, got)]
    assert sums[0] == sums[1], sums
    for path in (source, back):
        path.unlink()
    channel.run(f"rm {guest}/large", shell="raw")


def targets(channel: VsockChannel, guest: str, local: Path) -> None:
    source = local / "named"
    source.write_bytes(b"content")
    channel.run(f"mkdir -p {guest}/folder", shell="raw")
    channel.put_file(source, f"{guest}/folder")
    channel.put_file(source, f"{guest}/folder/")
    assert channel.run(f"cat {guest}/folder/named", shell="raw").stdout == "content"
    left = channel.run(f"ls -A {guest}/folder", shell="raw").stdout
    assert left == "named\n", left


def refusals(channel: VsockChannel, guest: str, local: Path) -> None:
    source = local / "large"
    source.write_bytes(bytes(3 * KIB * KIB))
    for target in (f"{guest}/missing/file", "/proc/version", "/proc/nowhere"):
        refused(lambda target=target: channel.put_file(source, target), target)
        assert channel.run("echo on").stdout == "on\n"
    for wanted in (guest, f"{guest}/missing", "/dev/zero", "/proc/1/mem"):
        refused(lambda wanted=wanted: channel.get_file(wanted, local / "none"), wanted)
    for request in (
        {"v": 1, "op": "dance"},
        {"v": 2, "op": "ping"},
        {"op": "run"},
        {"op": "put_file", "path": 7, "size": 1},
    ):
        answer = ask(channel, request)
        assert answer["ok"] is False and answer["error"], answer


def refused(act, target: str) -> None:
    try:
        act()
    except SmolVMError as error:
        assert target.rstrip("/") in str(error), error
    else:
        raise AssertionError(f"{target} was not refused")


def ask(channel: VsockChannel, request: dict) -> dict:
    connection: socket.socket = channel._open()
    try:
        protocol.send_json(connection, request)
        return protocol.recv_json(connection)
    finally:
        connection.close()


def crowd(channel: VsockChannel, guest: str, local: Path) -> None:
    """More at once than there are places: the last ones wait."""
    ended: list[int] = []

    def one(number: int) -> None:
        ended.append(int(channel.run(f"sleep 0.2; echo {number}", shell="raw", timeout=120).stdout))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(70)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == list(range(70)), ended


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
