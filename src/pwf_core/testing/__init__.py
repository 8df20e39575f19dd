"""The contract suite: what a broker, a store and a backend *are*, as tests that any adapter can run.

| module | for | says |
|---|---|---|
| `brokers` | every `Broker` | delivery, redelivery, sharing, strangers' messages, draining |
| `stores` | every `StateStore` | claims, fencing, outbox, batches, timers, lists; the reference |
| `runs` | stores and backends | joins, gathers, retries, dead letters, keys, retention, payloads |
| `backends` | every `Backend` | exchange, sharing, purge, watching, isolation |
| `workflows` | backends | whole workflows, through a client and workers |

An adapter plugs in with a harness (`Harness`; 20 to 40 lines) and a file like this one:

    import pytest
    from pwf_core.testing.brokers import *

    @pytest.fixture
    def harness():
        return MyHarness()

The tests are plain functions, and drive their own event loop: no plugin and no configuration. Those
for blocking ports are the same ones, on `shims.unblocked(port)`.
"""

import pytest

# Before the suite is imported, so that a failed `assert` in it shows its values.
_PARTS = ("backends", "bench", "brokers", "reference", "runs", "stores", "workflows")
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from pwf_core.testing.harness import (  # noqa: E402 -- see above
    PATIENCE,
    Harness,
    WorkflowHarness,
    behaviour,
)

__all__ = ["PATIENCE", "Harness", "WorkflowHarness", "behaviour"]
