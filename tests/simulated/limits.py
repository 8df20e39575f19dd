"""Limits so low that every decision and every result goes in parts."""

from __future__ import annotations

import functools

import pytest

from pwf_core import engine, scopes, staging

__all__ = ["lower"]


def lower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a step bear one call, or one result."""
    monkeypatch.setattr(engine, "in_parts", functools.partial(staging.in_parts, most_calls=1))
    monkeypatch.setattr(engine, "MOST_CALLS", 1)
    monkeypatch.setattr(staging, "MOST_CALLS", 1)
    monkeypatch.setattr(scopes, "BROUGHT", 0)
    monkeypatch.setattr(scopes, "PAGE", 1)
