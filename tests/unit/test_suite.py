"""The contract suite itself: what it exports is all that it has, and each test says what holds."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

SUITES = ["backends", "brokers", "runs", "stores", "workflows"]


def named_in(module):
    return {
        name: fn
        for name, fn in vars(module).items()
        if name.startswith("test_") and fn.__module__ == module.__name__
    }


@pytest.mark.parametrize("suite", SUITES)
def test_suite_exports_every_test_once(suite):
    """No module of a suite hides a test of another one behind the same name."""
    package = importlib.import_module(f"pwf_core.testing.{suite}")
    parts = [
        importlib.import_module(f"{package.__name__}.{part.name}")
        for part in pkgutil.iter_modules(package.__path__)
    ]
    names = [name for part in parts for name in named_in(part)]

    assert names
    assert len(names) == len(set(names))
    assert set(names) <= set(vars(package))


@pytest.mark.parametrize("suite", SUITES)
def test_every_test_states_a_fact(suite):
    """Each behaviour has a docstring, and runs on the harness that it is given."""
    package = importlib.import_module(f"pwf_core.testing.{suite}")
    for name, fn in vars(package).items():
        if name.startswith("test_"):
            assert fn.__doc__, name
            assert "harness" in inspect.signature(fn).parameters, name
