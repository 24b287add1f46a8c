# binds: a c f g h j k m annotations os
from __future__ import annotations
import a.b
import b.c as c, os.path
import   a . b
from d.e import f, f as g
from . import h
from .. i import (j,
    k as m,)
from .x import k
