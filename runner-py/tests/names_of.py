"""Prints, for each file named on stdin, a JSON list of the names that it binds; null when it is no Python."""

import ast
import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "runner"))
from vmrepl_runner.names import names_of

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        try:
            tree = ast.parse(Path(line.rstrip("\n")).read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError):
            print("null")
        else:
            print(json.dumps(sorted(names_of(tree).bound)))
