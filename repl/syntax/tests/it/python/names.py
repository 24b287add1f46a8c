"""Prints what each file named on stdin binds, deletes and whether it imports a star; null when it is no Python."""

import ast
import json
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from vmrepl_runner.names import names_of

for line in sys.stdin:
    try:
        names = names_of(ast.parse(Path(line.rstrip("\n")).read_bytes()))
    except SyntaxError:
        print("null")
    else:
        print(json.dumps([sorted(names.bound), sorted(names.deleted), names.star]))
