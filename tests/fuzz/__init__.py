"""Bytes that nobody sane sends, and what decoders make of them: a value or `CodecError`, and soon.

`python -m tests.fuzz` (or `nox -s fuzz`) tries a million; the tests try a sample.
"""
