"""Answers a JSON list of texts, one line on stdin, with a JSON list of the guest's `is_complete`."""

import json
import sys

sys.path.insert(0, sys.argv[1])
from vmrepl_runner.completeness import is_complete

print(json.dumps([[told["status"], told["indent"]] for told in map(is_complete, json.loads(sys.stdin.readline()))]))
