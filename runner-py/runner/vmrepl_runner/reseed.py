"""What a resumed copy must draw anew, so that it does not repeat its siblings.

Policy `keep`: generators that the user has seeded go on where they were, so that a seeded run stays
reproducible; all others are seeded from the system. Policy `fresh`: all of them are. numpy Generators and
`random.Random` objects under the user's names cannot be told seeded from unseeded: `keep` keeps them.
"""

import _random
import os
import random
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

_KEY_BYTES = 624 * 4
_SPENT = (624).to_bytes(4, sys.byteorder)
"""The position behind the last number of a key: the next draw mixes the key anew."""


class Reseeder:
    """Notes when the user seeds the global generators: wrapped once, before any user code runs, so that
    `from random import seed` is noted too."""

    def __init__(self) -> None:
        self._shared: Any = random.random.__self__  # type: ignore[attr-defined]
        """The generator behind the module's functions."""
        self._is_seeded = False
        self._bits: Any = None
        """numpy's generator whose state `_state` is."""
        self._state: memoryview | None = None
        self._serial = -1

    def install(self) -> None:
        """Wraps `random.seed` and `random.setstate`."""
        random.seed = self._noting(random.seed)
        random.setstate = self._noting(random.setstate)

    def _noting(self, original: Callable[..., None]) -> Callable[..., None]:
        def noted(*arguments: Any, **named: Any) -> None:
            original(*arguments, **named)
            given = [*arguments, *named.values()]
            # Without an argument it draws from the system: nothing to be kept.
            self._is_seeded = bool(given) and given[0] is not None

        noted.__name__, noted.__doc__ = original.__name__, original.__doc__
        noted.__qualname__, noted.__module__ = original.__name__, "random"
        return noted

    def forget(self) -> None:
        """What was seeded so far was not the user's doing."""
        self._is_seeded = False

    def reseed(self, fresh: bool, serial: int, values: Callable[[], Iterable[object]]) -> None:
        """Seeds what is due; `serial` counts the cells so far. Nothing that user code has broken stops the rest."""
        untouched = serial == self._serial
        self._serial = serial
        for step in (self._python, self._numpy, _libraries):
            try:
                step(fresh, untouched)
            except Exception:
                continue
        if fresh:
            with suppress(Exception):
                _objects(values())

    def _python(self, fresh: bool, _untouched: bool) -> None:
        if fresh or not self._is_seeded:
            self._is_seeded = False
            # What `random.seed` comes to without an argument.
            _random.Random.seed(self._shared)
            self._shared.gauss_next = None

    def _numpy(self, fresh: bool, untouched: bool) -> None:
        module = sys.modules.get("numpy.random.mtrand")
        if module is None:
            return
        bits = module._rand._bit_generator
        # A seed sequence is what numpy has drawn itself; `numpy.random.seed` leaves none behind.
        if not fresh and bits.seed_seq is None:
            return
        state = self._state
        if untouched and state is not None and bits is self._bits:
            # No cell has run since the long way, so no half of a pair of normal numbers is kept either.
            state[:_KEY_BYTES] = os.urandom(_KEY_BYTES)
            state[_KEY_BYTES:] = _SPENT
            return
        drawn = type(bits)().state
        # A pair of normal numbers is drawn at once; its second half is not to be every copy's first.
        module._rand.set_state(drawn | {"has_gauss": 0, "gauss": 0.0})
        self._bits, self._state = bits, _state_of(bits)


def _state_of(bits: Any) -> memoryview | None:
    """The memory of a Mersenne twister, for a short way to seed it: its key, then its position. None when
    it does not look so."""
    if type(bits).__name__ != "MT19937":
        return None
    import ctypes

    memory = (ctypes.c_ubyte * (_KEY_BYTES + 4)).from_address(bits.ctypes.state_address)
    known = bits.state["state"]
    if bytes(memory) != known["key"].tobytes() + int(known["pos"]).to_bytes(4, sys.byteorder):
        return None
    return memoryview(memory).cast("B")


def _objects(values: Iterable[object]) -> None:
    numpy = sys.modules.get("numpy.random")
    for value in values:
        if type(value) is random.Random:
            value.seed()
        elif numpy is not None and isinstance(value, numpy.Generator):
            bits = value.bit_generator
            bits.state = type(bits)().state
        elif numpy is not None and isinstance(value, numpy.RandomState):
            value.seed()


def _libraries(_fresh: bool, _untouched: bool) -> None:
    modules = sys.modules
    ssl, uuid, tempfile = modules.get("_ssl"), modules.get("uuid"), modules.get("tempfile")
    if ssl is not None:
        ssl.RAND_add(os.urandom(32), 32.0)
    if uuid is not None:
        uuid._node = uuid._last_timestamp = None  # type: ignore[attr-defined]
    if tempfile is not None:
        tempfile._name_sequence = None  # type: ignore[attr-defined]
