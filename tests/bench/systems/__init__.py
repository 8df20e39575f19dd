"""One program per system: `python -m tests.bench.systems.NAME worker|client`, see `speaking.py`."""
