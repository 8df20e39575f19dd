"""The chaos soak: real workers and servers, killed, paused and cut off, and nothing may be missing.

`python -m tests.chaos` (or `nox -s chaos`) runs random workflows on private servers while faults
drawn from a seed happen, heals everything, and reads back what became of every run. What happened
is known from a diary outside the store, which every process appends to.

| module | about |
|---|---|
| `shapes.py` | random workflows, and what each must come to |
| `workflows.py` | the handlers that run them; loaded by worker processes |
| `client.py` | the program that starts, cancels and answers runs, and waits for them |
| `diary.py` | the log outside the store |
| `proxy.py` | a TCP hop that cuts, freezes, slows and swallows |
| `site.py` | servers, proxies and URLs of one backend |
| `crew.py` | worker and client processes |
| `faults.py` | which faults happen when, by seed; and how each is done |
| `soak.py` | one whole soak: chaos, healing, reading back |
| `evidence.py` | what the diary says, judged against the shapes |
| `leftovers.py` | what is left in the servers once all runs are over and forgotten |
| `report.py` | the figures as a table |
"""
