"""The benchmark: pwf, its peers and the limits of the servers, side by side in one run.

`python -m tests.bench` (or `nox -s bench`) starts private servers, measures every system with every
workload in turn, three times over, and prints ratios first, then figures. What is measured, and what
is not, is said by `docs/benchmarks.md`, which the same program writes.

| module | about |
|---|---|
| `workloads.py` | what is measured, and how a figure comes of it |
| `catalogue.py` | the systems: which program, which servers, which options |
| `systems/` | one small program per system, in its own idiom: worker and client |
| `systems/speaking.py` | what these share: the protocol, the tally; standard library only |
| `environments.py` | a virtual environment for each peer; every pinned version |
| `crew.py` | worker and client processes, started, killed, asked |
| `session.py` | one system with its servers, ready to be measured |
| `measuring.py` | the order of it all: repetitions, deadlines |
| `postgres.py` | a private PostgreSQL |
| `results.py` | figures, medians, machine facts; as JSON |
| `ratios.py` | what is compared with what, its target, and the gate |
| `report.py`, `plot.py` | the table, `docs/benchmarks.md` and its plot |
"""
