"""Does what the first line of its input says; see the folder's README."""

import os
import socket
import subprocess
import sys

FOLDERS = ["/", "/etc", "/usr", "/home", "/home/user"]


def fork() -> None:
    parent = os.getpid()
    while True:
        try:
            os.fork()
        except OSError:
            if os.getpid() == parent:
                print("refused")
                return


def write() -> None:
    for folder in FOLDERS:
        path = os.path.join(folder, "was-here")
        try:
            with open(path, "w") as file:
                file.write("x")
            print("WROTE", path)
        except OSError:
            print("denied", path)


def connect(name: str, family: int, address: tuple[object, ...]) -> None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.settimeout(2)
            one.connect(address)
        print("CONNECTED", name)
    except OSError:
        print("denied", name)


def net() -> None:
    connect("1.1.1.1:80", socket.AF_INET, ("1.1.1.1", 80))
    connect("127.0.0.1:22", socket.AF_INET, ("127.0.0.1", 22))
    for port in (9, 1024, 52000):
        for cid in (1, 2):
            connect(f"vsock {cid}:{port}", socket.AF_VSOCK, (cid, port))


def memory() -> None:
    held = []
    while True:
        held.append(b"x" * (1 << 22))


def flood() -> None:
    while True:
        sys.stdout.write("x" * 65535 + "\n")


def spin() -> None:
    while True:
        pass


def main() -> None:
    first, _, rest = sys.stdin.buffer.read().partition(b"\n")
    word, _, argument = first.decode().partition(" ")
    if word == "hello":
        print("hello")
    elif word == "echo":
        sys.stdout.buffer.write(rest)
    elif word == "exit":
        sys.exit(int(argument))
    elif word == "raise":
        raise ValueError("as asked")
    elif word == "child":
        subprocess.Popen(["sleep", "1000000"], start_new_session=True)
        print("left")
    else:
        {"spin": spin, "memory": memory, "fork": fork, "flood": flood, "write": write, "net": net}[word]()


main()
