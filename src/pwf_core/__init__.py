"""The pure core of pwf: ports, ids, joins, scopes, and the protocols as sans-IO generators.

No I/O, no event loop, no thread, no clock and no chance lives here. Users import `pwf`; authors of
adapters import the modules of this package by name.
"""
