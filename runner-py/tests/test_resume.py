"""Resumed copies: what is drawn anew, what the user's seed keeps."""

import json

import pytest
from conftest import RESUMED, RESUMED_ACK, Speaker

DRAWS = {
    "random": ("import random", "random.random()", "random.seed(1)"),
    "from random": ("from random import random as r, seed", "r()", "seed(1)"),
    "state": ("import random\nkept = random.getstate()", "random.random()", "random.setstate(kept)"),
    "numpy": ("import numpy as np", "float(np.random.rand())", "np.random.seed(1)"),
}
SECRETS = {
    "tempfile": ("import tempfile\ntempfile.mktemp()", "tempfile.mktemp()"),
    "uuid": ("import uuid\nx = uuid.getnode()", "uuid._node"),
}


def resume(runner: Speaker, rng: str) -> None:
    runner.send(RESUMED, json.dumps({"generation": 7, "rng": rng}).encode(), 0)
    assert runner.until(RESUMED_ACK) == {"generation": 7}


@pytest.mark.parametrize("generator", DRAWS)
def test_a_seed_is_kept_and_the_rest_is_fresh(runner: Speaker, generator: str) -> None:
    setup, draw, seed = DRAWS[generator]
    state = {"numpy": "np.random.get_state()[1].tolist()"}.get(generator, "__import__('random').getstate()")
    runner.ask(code=setup)
    runner.ask(code=f"before = {state}")
    resume(runner, "keep")
    assert runner.run(f"before == {state}") is False
    runner.ask(code=seed)
    runner.ask(code=f"before = {state}")
    resume(runner, "keep")
    assert runner.run(f"before == {state}") is True
    assert isinstance(runner.run(draw), float)
    resume(runner, "fresh")
    assert runner.run(f"before == {state}") is False


def test_generators_of_the_user_follow_the_policy(runner: Speaker) -> None:
    runner.ask(code="import random, numpy as np; mine = random.Random(1); g = np.random.default_rng(1)")
    runner.ask(code="def now(): return mine.getstate(), str(g.bit_generator.state)\nbefore = now()")
    resume(runner, "keep")
    assert runner.run("before == now()") is True
    resume(runner, "fresh")
    assert runner.run("before[0] == now()[0], before[1] == now()[1]") == (False, False)


def test_names_and_nodes_are_drawn_anew(runner: Speaker) -> None:
    runner.ask(code="import tempfile, uuid; tempfile.mktemp(); uuid.getnode(); old = tempfile._name_sequence")
    resume(runner, "keep")
    assert runner.run("tempfile._name_sequence is old, uuid._node") == (False, None)


def test_a_resume_is_acknowledged_while_a_cell_runs(runner: Speaker) -> None:
    runner.start("while True: pass", "c")
    resume(runner, "keep")
    assert runner.ask(op="interrupt", cell="c", id="i")["acted"]
    assert runner.wait("c")["status"] == "interrupted"


def test_what_the_user_has_broken_does_not_stop_it(runner: Speaker) -> None:
    runner.ask(
        code="import random, sys; random._inst = None; sys.modules['uuid'] = 5; sys.modules['numpy.random.mtrand'] = 5"
    )
    resume(runner, "fresh")
