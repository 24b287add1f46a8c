"""What a resumed copy must draw anew, so that it does not repeat its siblings.

Generators that the user seeded go on where they were, unless the policy is `fresh`: a seeded run stays
reproducible. `seed` is wrapped once to note that it was called; numpy Generators that hang on the user's
names cannot be told seeded from unseeded and are treated as seeded.
"""

import os
import random
import sys
from collections.abc import Callable
from typing import Any


class Reseeder:
    """Knows which global generators the user has seeded."""

    def __init__(self) -> None:
        self._seeded: dict[str, bool] = {}
        self._seed: dict[str, Callable[..., Any]] = {}

    def watch(self) -> None:
        """Wraps the seed functions of the generators that are loaded by now. Cheap when done already."""
        self._wrap("random", random, "seed")
        numpy = sys.modules.get("numpy.random")
        if numpy is not None:
            self._wrap("numpy.random", numpy, "seed")

    def _wrap(self, key: str, module: Any, name: str) -> None:
        if key in self._seed:
            return
        original = getattr(module, name)
        self._seed[key] = original
        self._seeded[key] = False

        def seed(*args: Any, **kwargs: Any) -> Any:
            # Without an argument it draws from the system: that is no seed to be kept.
            self._seeded[key] = bool(args or kwargs) and args != (None,)
            return original(*args, **kwargs)

        seed.__name__ = seed.__qualname__ = name
        seed.__doc__ = original.__doc__
        setattr(module, name, seed)

    def forget(self) -> None:
        """What was seeded so far was the warm-up's doing, not the user's."""
        for key in self._seeded:
            self._seeded[key] = False

    def fresh(self, policy: str) -> None:
        """Seeds all that the user has not seeded, or everything."""
        for key, original in self._seed.items():
            if policy == "fresh" or not self._seeded[key]:
                self._seeded[key] = False
                original(int.from_bytes(os.urandom(4), "big") if key == "numpy.random" else None)
        ssl = sys.modules.get("_ssl")
        if ssl is not None:
            ssl.RAND_add(os.urandom(32), 32.0)
        uuid = sys.modules.get("uuid")
        if uuid is not None:
            uuid._last_timestamp = None  # type: ignore[attr-defined]
        tempfile = sys.modules.get("tempfile")
        if tempfile is not None:
            tempfile._name_sequence = None  # type: ignore[attr-defined]
