"""Random workflows, and what each must come to: its status, its value, and which calls it has.

A workflow is a tree of nodes that travels as the argument of its calls. Every node has a value that
is known at the start, and hands the sum of what is below it to whoever waits for it; so a commit that
got lost or came twice changes the result of the run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import StrEnum

import msgspec

__all__ = ["NOWHERE", "Kind", "Node", "Plan", "Step", "draw", "number_of", "steps_of", "task_of"]

NOWHERE = "-"
"""Where a node's value goes that nobody waits for."""

_SERVICES = ("alpha", "beta")
_FOR_EVER_MS = 3_600_000  # a timer that a soak never sees
_WIDE = 0.01  # of the runs have hundreds of calls at once, so that there are batches of hundreds


class Kind(StrEnum):
    """What a node does."""

    LEAF = "leaf"  # works a while, perhaps fails at first, and hands over its value
    THREAD = "thread"  # the same, as a sync handler
    CHAIN = "chain"  # one more call
    FORK = "fork"  # one more call, and others that nobody waits for
    GATHER = "gather"
    COLLECT = "collect"  # a gather that tolerates failures
    DOOM = "doom"  # always fails
    JOIN = "join"
    LATE = "late"  # a join registered after its events, or before, or in between
    OVERDUE = "overdue"  # a join whose time runs out
    ASK = "ask"  # a join on an event from outside


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of a workflow.

    Attributes:
        path: Names it, in the whole soak: "<number of the run>/<place in the tree>".
        to: The event that takes its sum; "" for `result`, `NOWHERE` for nobody.
        fails: How many attempts fail first.
        work_ms: How long its handler takes.
        delay_ms: How long it is delayed.
    """

    path: str
    kind: Kind
    service: str
    value: int = 0
    to: str = ""
    fails: int = 0
    work_ms: int = 0
    delay_ms: int = 0
    children: tuple[Node, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """A run to be started.

    Attributes:
        kind: plain, doomed (it fails), cancelled (it would never end), raced (cancelled on its way),
            or asked (it waits for an event from outside).
        key: Of the start; "" for none.
        pause: How long the client waits before it cancels or answers, in seconds.
        value: The result, should it finish.
    """

    number: int
    kind: str
    key: str
    pause: float
    root: Node
    value: int


class Step(msgspec.Struct, frozen=True):
    """A call that a finished run must have had, exactly once.

    Attributes:
        cause: Path and task of the call whose decision made it; None for the first.
    """

    path: str
    task: str
    cause: tuple[str, str] | None


def draw(seed: int, number: int) -> Plan:
    """Return the run of that number."""
    chance = random.Random(f"{seed}:{number}")
    kind = chance.choices(
        ["plain", "doomed", "cancelled", "raced", "asked"], weights=[78, 5, 5, 6, 6]
    )[0]
    draws = _Drawing(chance)
    path = f"{number}/0"
    match kind:
        case "doomed":
            root = Node(path, Kind.DOOM, draws.service(), work_ms=draws.work())
        case "cancelled":
            forever = Node(f"{path}.0", Kind.LEAF, draws.service(), delay_ms=_FOR_EVER_MS)
            children = (forever, draws.node(f"{path}.1", 2))
            root = Node(path, Kind.GATHER, draws.service(), children=children)
        case "asked":
            root = Node(path, Kind.ASK, draws.service(), value=draws.value())
        case _:
            root = draws.wide(path) if chance.random() < _WIDE else draws.node(path, 3)
    needs_key = kind in {"cancelled", "asked"}  # unknown ones would be left to themselves
    key = f"{seed}-{number}" if needs_key or chance.random() < 0.5 else ""
    return Plan(number, kind, key, round(chance.uniform(0, 1), 3), root, sum_of(root))


class _Drawing:
    """Draws nodes."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def service(self) -> str:
        return self._chance.choice(_SERVICES)

    def value(self) -> int:
        return self._chance.randint(1, 1000)

    def work(self) -> int:
        """Return how long a handler takes: mostly short, now and then long enough to be hit."""
        return self._chance.choice((0, 0, 1, 5, 20, 50, 200, 400))

    def delay(self) -> int:
        return self._chance.choice((0, 0, 0, 10, 100, 500))

    def node(self, path: str, depth: int, to: str = "") -> Node:
        """Return a random node with at most *depth* levels below."""
        kinds = [Kind.LEAF, Kind.THREAD]
        if depth:
            kinds = [*Kind]
            kinds.remove(Kind.DOOM)
            kinds.remove(Kind.ASK)
        kind = self._chance.choice(kinds)
        fails = self._chance.choice((0, 0, 0, 0, 1, 2)) if kind in {Kind.LEAF, Kind.THREAD} else 0
        return Node(
            path,
            kind,
            self.service(),
            value=self.value(),
            to=to,
            fails=fails,
            work_ms=self.work(),
            delay_ms=self.delay(),
            children=tuple(self._children(path, kind, depth - 1, to)),
        )

    def wide(self, path: str) -> Node:
        """Return a gather of hundreds of leaves that take no time: in one decision, or in parts."""
        count = self._chance.randint(150, 350)
        leaves = (
            Node(f"{path}.{n}", Kind.LEAF, self.service(), value=self.value()) for n in range(count)
        )
        return Node(path, Kind.GATHER, self.service(), value=self.value(), children=tuple(leaves))

    def _children(self, path: str, kind: Kind, depth: int, to: str) -> Iterator[Node]:
        several = [f"{path}.{n}" for n in range(self._chance.randint(2, 4))]
        match kind:
            case Kind.CHAIN | Kind.OVERDUE:
                yield self.node(f"{path}.0", depth, to)
            case Kind.FORK:
                first, *others = several
                yield self.node(first, depth, to)
                for one in others:
                    yield self.node(one, 0, NOWHERE)
            case Kind.GATHER:
                for one in several:
                    yield self.node(one, depth)
            case Kind.COLLECT:
                for one in several:
                    if self._chance.random() < 0.3:
                        yield Node(one, Kind.DOOM, self.service(), work_ms=self.work())
                    else:
                        yield self.node(one, depth)
            case Kind.JOIN | Kind.LATE:
                for one in several:
                    yield self.node(one, depth, f"sum of {one}")


def sum_of(node: Node) -> int:
    """Return what *node* hands over."""
    match node.kind:
        case Kind.DOOM:
            return 0
        case Kind.CHAIN | Kind.OVERDUE | Kind.FORK:
            return sum_of(node.children[0])
        case _:
            return node.value + sum(sum_of(one) for one in node.children if one.to != NOWHERE)


def steps_of(node: Node, cause: tuple[str, str] | None = None) -> Iterator[Step]:
    """Yield the calls that *node* comes to."""
    own = (node.path, task_of(node))
    yield Step(*own, cause)
    for child in node.children:
        yield from steps_of(child, own)
    match node.kind:
        case Kind.GATHER | Kind.COLLECT:
            yield Step(node.path, "total", own)
        case Kind.JOIN | Kind.ASK:
            yield Step(node.path, "joined", own)
        case Kind.LATE:
            yield Step(node.path, "register", own)
            yield Step(node.path, "joined", (node.path, "register"))


def task_of(node: Node) -> str:
    """Return the task that runs *node*."""
    return {Kind.THREAD: "work", Kind.DOOM: "doom"}.get(node.kind, "step")


def number_of(path: str) -> int:
    """Return the number of the run that *path* belongs to."""
    return int(path.partition("/")[0])
