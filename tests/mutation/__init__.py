"""Would a test notice? Each line of the state machine, slightly wrong, and the tests that judge it.

`python -m tests.mutation` (or `nox -s mutation`) changes one thing at a time and runs the tests that
need no server, the most telling ones first, until one of them fails; then the mutant is killed. The
score of a module is how many of its mutants are. Those that cannot be told from the real code are
listed with the reason in `equivalent.py`; they are judged all the same, and the score is said with
and without them.

Why not a tool: mutmut changes what is inside of functions only, so hardly anything of `state.py`,
and neither removes a statement nor turns a bare condition, which are the slips that matter in a state
machine; cosmic-ray edits the files in place and starts pytest anew for each mutant. The operators here
are those of both together, and more.

| module | about |
|---|---|
| `mutators.py` | what is changed |
| `judging.py` | a process for each mutant |
| `equivalent.py` | what no test can notice, and why |
| `__main__.py` | the program: which tests judge what, and the table |
"""
