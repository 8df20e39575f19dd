"""A few seconds of the chaos soak: enough to see that it still runs, and misses nothing."""

from __future__ import annotations

import asyncio

import pytest
from tests.chaos.soak import Settings, soak

SECONDS = 15.0
# How long things take says little on a machine that runs other tests as well; a soak judges that.
JUDGED = {
    *("lost", "doubled", "wrong", "stuck", "recomputed", "dead letters, not meant"),
    *("runs left", "messages left", "other keys left", "processes", "complaints in logs"),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("backend", "servers"),
    [
        pytest.param("redis", ["redis_server"], marks=pytest.mark.redis),
        pytest.param("rabbit", ["redis_server", "rabbit_server"], marks=pytest.mark.rabbit),
        pytest.param("cluster", ["redis_server"], marks=pytest.mark.redis),
    ],
)
def test_chaos(backend: str, servers: list[str], request: pytest.FixtureRequest) -> None:
    """Workers and servers are killed, paused and cut off; every run ends as it must, once."""
    for name in servers:
        request.getfixturevalue(name)  # skips where it is missing; the soak starts its own

    verdict = asyncio.run(soak(Settings(backend=backend, seed=1, seconds=SECONDS, retention=5.0)))

    rows = {row.name: row for row in verdict.rows}
    assert set(rows) >= JUDGED
    assert [] == [name for name in JUDGED if not rows[name].is_met], verdict.misses
    assert int(rows["runs finished"].value) > 10
    # Of what the plan has several of, some must have struck.
    assert int(rows["worker kills"].value) > 0
    assert int(rows["connections cut"].value) > 0
