"""Interrupts at random moments: none is lost, whatever the runner is doing when they come.

A lost one shows as an answer that does not come. VMREPL_SLOW makes the rounds many.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from conftest import SIGNALLED, Speaker

SLOW = "VMREPL_SLOW" in os.environ
ROUNDS = 1000 if SLOW else 12
SETTING = """
import asyncio, gc, itertools, os, queue, select, subprocess, threading, time
lock, pipe, empty = threading.Lock(), os.pipe(), queue.SimpleQueue()
lock.acquire()
class Dying:
    def __del__(self): sum(range(200))
class Cycle:
    def __init__(self): self.me = self
    def __del__(self): sum(range(200))
def blink():
    while True: time.sleep(0.0001)
async def spin():
    while True: await asyncio.sleep(0)
def children():
    while True: subprocess.run(["true"])
def forks():
    while True:
        child = os.fork()
        if not child: os._exit(0)
        os.waitpid(child, 0)
"""
WAITS = {
    "sleep": "time.sleep(10_000)",
    "lock": "lock.acquire()",
    "select": "select.select([], [], [], 10_000)",
    "read": "os.read(pipe[0], 1)",
    "queue": "empty.get()",
    "count": "for n in itertools.count(): hash(n)",
    "naps": "blink()",
    "events": "while True: display(1)",
    "lines": "for _ in range(500): print('x' * 50)\n    time.sleep(10_000)",
    "flushes": "for _ in range(5000): print('x', flush=True)\n    time.sleep(10_000)",
    "dying": "while True: Dying()",
    "cycles": "while True: Cycle(); gc.collect(0)",
    "await": "await asyncio.sleep(10_000)",
    "tasks": "await spin()",
    "loop": "inner = asyncio.Queue()\n    while True: inner.put_nowait(1)\n    await inner.get()",
    "forks": "forks()",
}


@pytest.fixture(params=["calm", "crowded"])
def crowd(request: pytest.FixtureRequest) -> Iterator[None]:
    """Other processes that want the processors."""
    count = 2 if request.param == "crowded" else 0
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    yield
    for process in busy:
        process.kill()
        process.wait()


def interrupt(runner: Speaker, cell: str, by_request: bool) -> None:
    if by_request:
        runner.request(op="interrupt", cell=cell, id=f"{cell} i")
        assert runner.wait(f"{cell} i")["acted"] is True
        return
    # What the agent does.
    told = {"cell": cell, "sent_ns": time.monotonic_ns()}
    os.kill(runner.process.pid, signal.SIGINT)
    runner.send(SIGNALLED, json.dumps(told).encode(), 0)


@pytest.mark.parametrize("how", WAITS)
@pytest.mark.usefixtures("crowd")
def test_none_is_lost(runner: Speaker, how: str) -> None:
    runner.ask(code=SETTING)
    numbers = random.Random(how)
    for number in range(ROUNDS):
        # The cell works before it waits, so that the signal finds it at either and in between.
        work = numbers.choice((0, numbers.randrange(4000)))
        line = f"print('[started]', flush=True)\n    for _ in range({work}): hash(_)\n    {WAITS[how]}"
        answer: dict[str, object] = {}
        runner.start(f"try:\n    {line}\nexcept BaseException as e: caught = type(e)\ncaught.__name__", f"c{number}")
        until = time.perf_counter_ns() + numbers.choice((0, numbers.randrange(1_000_000)))
        while time.perf_counter_ns() < until:
            pass
        interrupt(runner, f"c{number}", numbers.random() < 0.3)
        answer = runner.wait(f"c{number}")
        assert answer["status"] in ("ok", "interrupted"), answer
        if answer["status"] == "ok":
            assert answer["result_repr"] in ("'KeyboardInterrupt'", "'CancelledError'"), answer
    assert runner.ask(code="1 + 1", id="after")["result_repr"] == "2"
