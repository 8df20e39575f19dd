"""The in-memory adapter: the reference `transition` as it is, with queues and timers around it.

For tests, examples and programs whose work may die with them. Users reach it as `memory://`.
"""
