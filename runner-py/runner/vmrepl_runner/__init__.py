"""The runner: request lines in, events and answers out, over one private socket to the agent.

In reading order: `main` starts it. `reader` takes frames (`frames`) and requests (`cells`) on a thread of
its own; `desk` says which is next; `runner` does it on the main thread, where `interrupts` can stop it, and
`answers` writes down what came of it. `stage`, `stdin` and `streams` are what user code touches of us.

Behind `backend` lies the language. `backend_python` joins `execute`, `tracebacks`, `names` (a cell's life),
`rich`, `tables`, `preview` (values shown), `complete`, `describe`, `variables`, `completeness`, `lookup`,
`modules` (questions) and `debug`. `backend_kernel` is for other languages: an interpreter in a process of its own
(`kernel`, `kernels/`) keeps the names and answers for them; how it is spoken to is its dialect (`dialect_node`,
`dialect_bash`). `reseed` serves resumed copies, `rehearse` the first cell's speed.

Nothing here prints, but for notes to the user on standard error: descriptors 1 and 2 are the user's.
"""
