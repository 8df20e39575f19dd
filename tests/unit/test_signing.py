"""Signed messages: what is genuine is read, and nothing else; no key is ever shown."""

from __future__ import annotations

import itertools
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pwf_core.adapters import Settings
from pwf_core.commands import Message
from pwf_core.errors import CodecError, ConfigurationError
from pwf_core.ids import CallId, RunId
from pwf_core.signing import Signer, read_keys
from pwf_core.wire import decode_messages, encode_messages

OLD, NEW, OTHER = b"old-key-old-key-", b"new-key-new-key-", b"other-key-other-"
MESSAGES = [Message(RunId("0" * 32), CallId("f" * 32), 3, "shop.task")]
SIGNER = Signer("live", (NEW, OLD))
SIGNED = encode_messages(MESSAGES, SIGNER)

pack = msgspec.msgpack.encode


def test_signed_messages_make_the_round_trip():
    """Whoever has the key reads them, from the queue for which they were signed."""
    assert decode_messages(SIGNED, Signer("live", (NEW,)), "shop") == MESSAGES


def test_format_of_signed_messages_never_changes():
    """They wait in queues: this signature is for ever."""
    body = encode_messages(MESSAGES)
    signature = bytes.fromhex("d29b86970de7a0ed8b928d428db6246e37a03b6caa70ed35f26c22be5c56fda9")

    assert pack([2, signature, body]) == SIGNED


@pytest.mark.parametrize("bit", range(8))
def test_no_bit_can_be_changed(bit):
    """One changed bit anywhere, and it is not ours."""
    for position in range(len(SIGNED)):
        forged = bytearray(SIGNED)
        forged[position] ^= 1 << bit
        with pytest.raises(CodecError):
            decode_messages(bytes(forged), SIGNER, "shop")


def test_nothing_can_be_added_or_cut_off():
    """The length is signed, too."""
    for forged in (SIGNED + b"\0", SIGNED[:-1], b"\x94" + SIGNED[1:] + b"\0"):
        with pytest.raises(CodecError):
            decode_messages(forged, SIGNER, "shop")


@pytest.mark.parametrize(
    ("signer", "service"),
    [
        (Signer("live", (OLD,)), "shop"),
        (Signer("test", (NEW,)), "shop"),
        (Signer("live", (NEW,)), "bank"),
        (Signer("livesho", (NEW,)), "p"),
        (Signer("live", (NEW,)), ""),
    ],
)
def test_message_is_bound_to_its_key_deployment_and_queue(signer, service):
    """Elsewhere it is a forgery, however genuine it is at home."""
    with pytest.raises(CodecError, match="none of the keys here has signed it"):
        decode_messages(SIGNED, signer, service)


@pytest.mark.parametrize(
    "body",
    [
        encode_messages(MESSAGES),
        pack([1, *msgspec.msgpack.decode(SIGNED)[1:]]),
        pack([3, *msgspec.msgpack.decode(SIGNED)[1:]]),
    ],
)
def test_unsigned_messages_are_refused_where_there_are_keys(body):
    """The error says who may have sent it."""
    with pytest.raises(CodecError, match=r"not signed.*PWF_SIGNING_KEYS"):
        decode_messages(body, SIGNER, "shop")


def test_signed_messages_are_refused_where_there_are_no_keys():
    """The error says what to do."""
    with pytest.raises(CodecError, match=r"no keys here.*signing_keys.*PWF_SIGNING_KEYS"):
        decode_messages(SIGNED)


def test_signature_inside_a_signature_is_refused():
    """What was verified is a plain message."""
    inner = SIGNER.sign(SIGNED, "shop")
    with pytest.raises(CodecError, match="version 2"):
        decode_messages(pack([2, inner, SIGNED]), SIGNER, "shop")


def test_keys_are_replaced_without_a_gap():
    """In each step of a rotation, those who have made it and those who have not understand each other."""
    steps = [(OLD,), (OLD, NEW), (NEW, OLD), (NEW,)]
    for before, after in itertools.pairwise(steps):
        for sender, reader in ((before, after), (after, before)):
            body = encode_messages(MESSAGES, Signer("live", sender))

            assert decode_messages(body, Signer("live", reader), "shop") == MESSAGES


@given(st.binary(max_size=200))
def test_garbage_is_refused(body):
    """No bytes raise anything but a CodecError, and none is read."""
    with pytest.raises(CodecError):
        decode_messages(body, SIGNER, "shop")


@given(st.lists(st.binary(max_size=40) | st.integers(0, 300) | st.none(), max_size=4))
def test_nearly_right_bodies_are_refused(parts):
    """Whatever stands where signature and body belong."""
    for signer in (SIGNER, None):
        with pytest.raises(CodecError):
            decode_messages(pack([2, *parts]), signer, "shop")


@given(st.binary(max_size=200))
def test_signed_garbage_is_refused_or_read(inner):
    """Even of a friend."""
    with suppress(CodecError):
        decode_messages(pack([2, SIGNER.sign(inner, "shop"), inner]), SIGNER, "shop")


def test_text_is_a_key_by_its_utf8():
    """Keys from a file of secrets and from code are the same."""
    assert read_keys(["größer-als-zehn"]) == ("größer-als-zehn".encode(),)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "holds no key"),
        ((), "holds no key"),
        ("s3cret-s3cret-s3cret", "a list of keys is expected, not of type str"),
        (b"s3cret-s3cret-s3cret", "a list of keys is expected, not of type bytes"),
        (5, "not of type int"),
        ([""], "key 1 has 0 bytes"),
        ([b"s3cret-s3cret-s3cret", "s3cret-s3cret"], "key 2 has 13 bytes"),
        ([["s3cret-s3cret-s3cret"]], "key 1 is of type list"),
        (["s3cret-s3cret-s3cret\ud800"], "UTF-8"),
    ],
)
def test_unusable_keys_are_refused_and_not_shown(keys, message):
    """The error says which, and how to make a good one."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_keys(keys)

    assert "s3cret" not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_keys_are_not_shown():
    """Neither by what holds them."""
    settings = Settings(namespace="live", signing_keys=(NEW, OLD))

    assert settings.signer == SIGNER
    assert "key-" not in f"{settings!r} {settings.signer!r} {settings}"
    assert Settings().signer is None
