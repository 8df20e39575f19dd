"""Workflows of all shapes on simulated servers, with every fault at every effect.

| module | about |
|---|---|
| `shapes.py` | thirteen workflows, each of another shape |
| `limits.py` | limits so low that everything goes in parts |
| `__main__.py` | explores them, and prints the figures |
| `soak.py` | random workflows of the chaos soak with random faults, by seed; a program, too |
| `test_*.py` | what CI runs of these |
"""
