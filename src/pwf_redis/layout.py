"""How a namespace is spread over partitions, and how it gets more of them while work goes on.

The key `format` of each partition says who may write there, and how many partitions there have been:
`1 fused 8 32` is version 1 of what is stored, used without a message broker, begun with 8 partitions
and now of 32. Every script compares it with what its caller believes, so that nobody who believes an
older layout writes anything; he reads the layout again and goes on. One partition alone is `1 fused`.

A run stays where it has begun: its id says where that is. A key's run lies where a hash of the key
puts it in the latest layout, unless it is still known where an earlier one had put it.

To grow, first of all partition 0 says `1 fused 8>32`. Then all others are given the new layout, and
partition 0 comes last. Whoever finds it in between, the grower having died say, finishes that. So a
layout is used only once nobody can write by an older one.

A failover can take a partition back to what it said before. Whoever is refused there brings it along
again; it is partition 0 that has lost something if another one says more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from pwf_core.errors import ConfigurationError
from pwf_core.ids import RunId, home_of, place_in
from pwf_core.steps import Steps
from pwf_redis.keys import Keys
from pwf_redis.rounds import Round, Spread, ask, call, together
from pwf_redis.scripts import ADVANCE

__all__ = [
    "DEFAULT",
    "Layout",
    "OtherFormatError",
    "bring_along",
    "check_format",
    "restore",
    "settle",
]

DEFAULT = 8  # partitions of a new namespace on a cluster
_VERSION = 1  # of what is stored


class OtherFormatError(ConfigurationError):
    """A partition is used in another way than its caller believes.

    Attributes:
        text: What its `format` says.
    """

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


@attrs.frozen
class Layout:
    """How a namespace is used.

    Attributes:
        paired: Whether a message broker carries the messages.
        sizes: How many partitions there have been, the latest number last; each is larger than
            those before it.
        growing: How many there are going to be; 0 if it does not grow just now.
        text: What `format` says; each script call brings it.
    """

    paired: bool
    sizes: tuple[int, ...] = (1,)
    growing: int = 0
    text: str = attrs.field(
        default=attrs.Factory(lambda self: self._write(), takes_self=True),
        init=False,
        eq=False,
        repr=False,
    )

    @classmethod
    def parse(cls, text: str, *, paired: bool) -> Layout | None:
        """Return what a format says; None if that is none of this version, or of others' use."""
        head = cls(paired).text
        if text == head:
            return cls(paired)
        sizes, _, growing = text.removeprefix(head).partition(">")
        try:
            found = cls(paired, tuple(map(int, sizes.split())), int(growing or 0))
        except ValueError:
            return None
        is_in_order = [*found.all] == sorted({*found.all}) and found.all[:1] > (0,)
        return found if is_in_order and found.text == text else None

    @property
    def all(self) -> tuple[int, ...]:
        """The sizes, and what it grows to."""
        return (*self.sizes, self.growing) if self.growing else self.sizes

    @property
    def size(self) -> int:
        """How many partitions there are."""
        return self.sizes[-1]

    def _write(self) -> str:
        head = f"{_VERSION} {'paired' if self.paired else 'fused'}"
        if self.all == (1,):
            return head
        return f"{head} {' '.join(map(str, self.sizes))}" + f">{self.growing}" * bool(self.growing)

    def before(self) -> list[str]:
        """Return the texts of the layouts that have led to this one."""
        return [Layout(self.paired, self.sizes[:n]).text for n in range(1, len(self.sizes))]

    def follows(self, other: Layout) -> bool:
        """Whether *other* is one of the layouts that have led to this one."""
        count = len(other.sizes)
        return count < len(self.sizes) and other.sizes == self.sizes[:count]

    def place_of(self, run_id: RunId) -> int:
        """Return the partition of a run."""
        place = place_in(run_id)
        if place is not None and place < self.size:
            return place
        return home_of(run_id, self.sizes[0])  # whatever has been added since

    def homes_of(self, key: str) -> list[int]:
        """Return where a key's run may be, and first of all where it is put if it is nowhere."""
        return list(dict.fromkeys(home_of(key, size) for size in reversed(self.sizes)))


def check_format(where: str, keys: Keys, *, paired: bool) -> Steps[Round, None]:
    """Make sure that everybody who uses a namespace of one partition means the same by it.

    Args:
        where: The server, for people.
        keys: The namespace.
        paired: Whether a message broker of its own carries the messages.

    Raises:
        OtherFormatError: If it is used otherwise, or by a later version of pwf.
    """
    ours = Layout(paired).text
    yield from ask("SET", keys.format, ours, "NX")
    found = yield from ask("GET", keys.format)
    text = found.decode(errors="replace") if isinstance(found, bytes) else ours
    if text != ours:
        raise other_format(where, keys, text, paired=paired)


def other_format(where: str, keys: Keys, text: str, *, paired: bool) -> OtherFormatError:
    """Return what to tell those who find *text* where their own format should be."""
    place = f"Namespace {keys.namespace!r} of Redis at {where}"
    if Layout.parse(text, paired=not paired) is not None:
        other, this = ("on its own", "with a message broker")
        if not paired:
            other, this = this, other
        return OtherFormatError(
            f"{place} is used by workers that run Redis {other}; running it {this} needs another "
            "namespace, because neither would see the other's messages.",
            text,
        )
    if Layout.parse(text, paired=paired) is not None:
        return OtherFormatError(
            f"{place} is spread over the partitions of a cluster (its format is {text!r}): connect "
            "to redis+cluster://…",
            text,
        )
    return OtherFormatError(
        f"{place} is stored in format {text!r}, which this version of pwf does not know (it writes "
        f"{Layout(paired).text!r}). Upgrade it.",
        text,
    )


def settle(
    where: str,
    keys_of: Callable[[int], Keys],
    wanted: int | None,
    *,
    paired: bool,
    patience: float | None = None,
) -> Steps[Spread, Layout]:
    """Return the layout of a namespace; make it, let it grow or finish its growth if need be.

    Args:
        where: The cluster, for people.
        keys_of: Gives the keys of a partition.
        wanted: How many partitions there are to be at least.
        paired: Whether a message broker of its own carries the messages.
        patience: Of the first question, see `Spread`.

    Raises:
        OtherFormatError: If it is used otherwise, or by a later version of pwf.
        UnavailableError: If a partition cannot be reached.
    """
    first = keys_of(0)
    while True:
        found = yield from _at(first, ask("GET", first.format), patience)
        if found is None:
            layout = Layout(paired, (), wanted or DEFAULT)
            yield from _at(first, ask("SET", first.format, layout.text, "NX"))
            continue
        text = found.decode(errors="replace")
        parsed = Layout.parse(text, paired=paired)
        if parsed is None:
            raise other_format(where, first, text, paired=paired)
        layout = parsed
        if layout.growing:
            grown = Layout(paired, (*layout.sizes, layout.growing))
            for number in range(1, grown.size):
                keys = keys_of(number)
                yield from _at(keys, _advance(keys, grown.text, *grown.before()))
            yield from _at(first, _advance(first, grown.text, layout.text))
        elif wanted is not None and wanted > layout.size:
            growing = Layout(paired, layout.sizes, wanted)
            yield from _at(first, _advance(first, growing.text, layout.text))
        else:
            return layout


def bring_along(
    number: int, error: OtherFormatError, layout: Layout, keys_of: Callable[[int], Keys]
) -> Steps[Spread, None]:
    """Let a partition say again what it said before a failover.

    Args:
        number: The partition.
        error: What it says.
        layout: The one that partition 0 says.
        keys_of: Gives the keys of a partition.

    Raises:
        OtherFormatError: If it says something that belongs to no layout of these.
    """
    said = Layout.parse(error.text, paired=layout.paired)
    if said is None:
        raise error
    if layout.sizes[: len(said.all)] == said.all:
        keys = keys_of(number)
        yield from _at(keys, _advance(keys, layout.text, *layout.before()))
    elif said.follows(layout):
        yield from restore(said, keys_of)
    else:
        raise error


def restore(layout: Layout, keys_of: Callable[[int], Keys]) -> Steps[Spread, None]:
    """Let partition 0 say that a layout is about to come which it has forgotten; then `settle`."""
    first = keys_of(0)
    growing = Layout(layout.paired, layout.sizes[:-1], layout.sizes[-1])
    yield from _at(first, _advance(first, growing.text, *layout.before()))


def _advance(keys: Keys, text: str, *before: str) -> Steps[Round, Any]:
    # What the server knows of flags has not been asked yet, and the script needs none.
    return call(ADVANCE, keys, [text, *before], flagged=False)


def _at(keys: Keys, steps: Steps[Round, Any], patience: float | None = None) -> Steps[Spread, Any]:
    found = (yield from together({keys.slot: steps}, patience))[keys.slot]
    if isinstance(found, Exception):
        raise found
    return found
