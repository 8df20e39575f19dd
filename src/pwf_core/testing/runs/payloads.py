"""Payloads: bytes and text come back as they went in, whatever is in them."""

from __future__ import annotations

import msgspec
import pytest

from pwf_core.commands import Bury
from pwf_core.testing.bench import open_bench
from pwf_core.testing.harness import Harness, behaviour
from pwf_core.testing.making import call, gather, join, postpone

_encode = msgspec.msgpack.encode

PAYLOADS = {
    "quotes": _encode('it\'s "quoted" \\ and `more`'),
    "nul": _encode("a\0b\0"),
    "emoji": _encode("größe 日本語 🎉"),
    "not-utf8": _encode(b"\xff\xfe\x00\x80\xc0"),
    "not-msgpack": b"\xc1\xff\x00\n\r",
    "every-byte": bytes(range(256)),
    "64k": _encode("x" * 65536),
    "256k": bytes(range(256)) * 1024,
    "large-number": _encode(2**63 + 1),
    "deep": b"\x91" * 200 + b"\xc0",
    "code": _encode("]] .. redis.call('FLUSHALL') -- %s {0}"),
}

payloads = pytest.mark.parametrize(
    "payload",
    [pytest.param(payload, id=name) for name, payload in PAYLOADS.items()],
)


@payloads
@behaviour()
async def test_payload_comes_back(harness: Harness[object], payload: bytes) -> None:
    """Bodies, events, members' results and the run's result are the bytes that they were."""
    bench = await open_bench(harness)
    root = await bench.begin(call(body=payload))

    assert payload == root.body
    await bench.commit(
        root,
        calls=[call("work.child", payload)],
        joins=[join("e", then=call("work.joined", payload))],
        gathers=[gather(call("work.member", payload), then=call("work.gathered", payload))],
    )
    grants = {grant.address: grant for grant in await bench.take(2)}
    assert [payload] * 2 == [grant.body for grant in grants.values()]
    await bench.commit(grants["work.child"], emits=[("e", payload)])
    joined = await bench.take_one("work.joined")
    assert (payload, {"e": payload}) == (joined.body, joined.events)
    await bench.commit(grants["work.member"], result=payload)
    gathered = await bench.take_one("work.gathered")
    assert (payload, [payload]) == (gathered.body, gathered.results)
    await bench.commit(gathered, result=payload)
    assert payload == (await bench.outcome(root.run_id)).result


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('it\'s "quoted" \\ and `more`', id="quotes"),
        pytest.param("a\0b\0", id="nul"),
        pytest.param("größe 日本語 🎉", id="emoji"),
        pytest.param("line\nline\r\n\ttab", id="lines"),
        pytest.param("x" * 16384, id="16k"),
        pytest.param("%s {0} $1 ]] -- */", id="code"),
    ],
)
@behaviour()
async def test_reason_comes_back(harness: Harness[object], text: str) -> None:
    """The reason of a retry and of a death is the text that it was."""
    bench = await open_bench(harness)
    grant = await bench.begin()
    await bench.do(postpone(grant, reason=text))

    assert text == (await bench.call(grant.run_id)).reason
    grant = await bench.take_one()
    await bench.do(Bury(grant.run_id, grant.call_id, grant.claim_id, text))
    (letter,) = await bench.port.dead_letters(None, 1)
    assert text == letter.reason
    assert text in (await bench.outcome(grant.run_id)).reason


@pytest.mark.parametrize(
    "name",
    [
        "with.dot",
        "with space",
        "größe 日本語 🎉",
        "'\"\\;--",
        "*?[a-z]{x}:%41",
        "x" * 100,
        "1",
        "-1",
    ],
)
@behaviour()
async def test_event_may_have_any_allowed_name(harness: Harness[object], name: str) -> None:
    """Every event name that the core allows is an event of its own."""
    bench = await open_bench(harness)
    root = await bench.begin()
    await bench.commit(
        root,
        joins=[join(name, "other", then=call("work.then"))],
        emits=[(name, b"\x01")],
        calls=[call("work.next")],
    )

    assert {name} == set((await bench.view(root.run_id)).events)
    await bench.commit(await bench.take_one("work.next"), emits=[("other", b"\x02")])
    then = await bench.take_one("work.then")
    assert {name: b"\x01", "other": b"\x02"} == then.events
