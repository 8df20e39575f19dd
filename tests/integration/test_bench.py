"""The benchmark at a hundredth of its size: every workload still runs, and comes to the right values.

No speed is judged here. Peers are not installed, so their programs do not run.
"""

from __future__ import annotations

import pytest
from tests.bench.catalogue import by_name
from tests.bench.measuring import Bench
from tests.bench.ratios import fallen, ratios
from tests.bench.report import page, table
from tests.bench.results import Results
from tests.bench.workloads import WORKLOADS, Scale

SMALL = Scale(0.01, patience=60.0, recovery=1)
FIGURES = {"W1", "W2", "W3", "W4 median", "W4 p99", "W5 single", "W5 batched"}
SURVIVAL = {"W7 chains": 1.0, "W7 forks": 1.0, "W7 twice": 0.0}


def measure(*systems: str, only: str) -> Results:
    """Return what one small repetition finds."""
    workloads = [one for one in WORKLOADS if one.name in only.split()]
    bench = Bench([by_name(name) for name in systems], workloads, 1, SMALL)
    return bench.run()


def reasons(results: Results) -> list[str]:
    """Return why cells are empty."""
    cells = [cell for cells in results.cells.values() for cell in cells.values()]
    return [cell.reason for cell in cells if cell.reason]


def on(system: str, *servers: str) -> object:
    """Return a parameter with the marks of its servers."""
    marks = [getattr(pytest.mark, name) for name in servers]
    return pytest.param(system, [f"{name}_server" for name in servers], marks=marks, id=system)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("system", "servers"),
    [on("pwf-memory"), on("pwf-redis", "redis"), on("pwf-rabbit", "redis", "rabbit")],
)
def test_speeds(system: str, servers: list[str], request: pytest.FixtureRequest) -> None:
    """Every workload gives a figure, which it does only after its values have been found right."""
    further = {"W6", *{"pwf-memory": ["W8"], "pwf-redis": ["W9"]}.get(system, ())}
    for name in servers:
        request.getfixturevalue(name)  # skips where it is missing; the benchmark starts its own

    results = measure(system, only="W1 W2 W3 W4 W5 W6 W8 W9")

    assert [] == reasons(results)
    assert FIGURES | further == set(results.cells[system])
    assert all(cell.values[0] > 0 for cell in results.cells[system].values())


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("system", "servers"), [on("pwf-redis", "redis"), on("pwf-rabbit", "redis", "rabbit")]
)
def test_a_killed_worker(system: str, servers: list[str], request: pytest.FixtureRequest) -> None:
    """All runs finish after the only worker was killed and started again, and none ends twice."""
    for name in servers:
        request.getfixturevalue(name)

    results = measure(system, only="W7")

    found = {name: results.median(system, name) for name in SURVIVAL}
    assert [] == reasons(results)
    assert found == SURVIVAL


@pytest.mark.redis
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("redis_server")
def test_limits_and_report() -> None:
    """The limits of Redis are found, ratios come of them, and the page can be written."""
    results = measure("pwf-redis", "thin", "raw-redis", only="W1 raw")
    values = {one.name: one.value for one in ratios(results)}

    assert [] == reasons(results)
    one_by_one = {"XADD one by one", "XADD one by one, blocking"}
    assert set(results.cells["raw-redis"]) == {*one_by_one, "XADD by 64", "commit script"}
    assert (values["W1: pwf-redis ÷ thin"] or 0) > 0
    assert "W1: pwf-redis ÷ thin" in table(results)
    assert "| pwf, Redis |" in page(results)


def test_gate() -> None:
    """The gate names what has fallen by more than a fifth, whichever way is better, and nothing else."""

    def found(speed: float, latency: float) -> Results:
        results = Results()
        for system, w1, w4 in (("pwf-redis", speed, latency), ("thin", 100.0, 1.0)):
            results.cell(system, "W1").values.append(w1)
            results.cell(system, "W4 median").values.append(w4)
        return results

    recorded = found(speed=80, latency=1.0)

    assert [] == fallen(found(speed=65, latency=1.2), recorded)
    assert 1 == len(fallen(found(speed=63, latency=1.0), recorded))
    assert 1 == len(fallen(found(speed=80, latency=1.3), recorded))
