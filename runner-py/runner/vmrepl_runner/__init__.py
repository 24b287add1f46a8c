"""The runner: cells in, events and answers out, over one private socket to the agent.

`main` starts it; `serve` takes requests; `backend_python` runs code; the other modules each answer one
kind of question. Nothing here prints: fd 1 and 2 belong to the user's code.
"""
