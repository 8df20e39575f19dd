"""Payloads to bytes and back: typed, bounded, one error."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pwf_core.errors import CodecError, DefinitionError, PayloadTooLargeError
from pwf_core.values import MAX_PAYLOAD, NONE, check_size, decode, decoder_for, encode

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Colour(Enum):
    RED = "red"


@attrs.frozen
class Attrs:
    name: str
    colour: Colour


@dataclass(frozen=True)
class Data:
    when: datetime


class Struct(msgspec.Struct, frozen=True):
    parts: tuple[Attrs, ...]


@given(plain)
def test_builtins_make_the_round_trip(value):
    """What goes in comes out; text with lone surrogates alone does not go in."""
    try:
        data = encode(value, "It")
    except CodecError:
        assert "\\ud" in ascii(value)
        return

    assert value == decode(data, object, "It")


@pytest.mark.parametrize(
    "value",
    [
        Attrs("größe", Colour.RED),
        Data(datetime(2026, 1, 1, tzinfo=UTC)),
        Struct((Attrs("a", Colour.RED),)),
    ],
)
def test_classes_make_the_round_trip(value):
    """Attrs classes, dataclasses and structs come back as what they were."""
    assert value == decode(encode(value, "It"), type(value), "It")


def test_none_is_nil():
    """A value of None is one byte that everybody knows."""
    assert NONE == encode(None, "It")


@pytest.mark.parametrize(
    "value", [object(), {1, object()}, 2**64, -(2**63) - 1, "\ud800", lambda: 1]
)
def test_what_has_no_form_is_refused(value):
    """A value without a msgpack form is one clear error that names it."""
    with pytest.raises(CodecError, match=r"^It: ") as caught:
        encode(value, "It")

    assert "It" == caught.value.what


class Holder(msgspec.Struct):
    inner: object


@attrs.define
class Box:
    inner: object


@dataclass
class Record:
    inner: object


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([1, object()], "$[1]"),
        ({"a": ("x", {"b": 2**70})}, "$.a[1].b"),
        ({7: "\ud800"}, "$[7]"),
        ({"\ud800": object()}, r"$['\ud800']"),
        ([Holder([Box(Record(object()))])], "$[0].inner[0].inner.inner"),
        (["ok", {"a": {object(): 1}}], "$[1].a"),
    ],
)
def test_error_says_where_the_value_without_a_form_is(value, path):
    """By the same paths as when a value is decoded, and without the containers around it."""
    with pytest.raises(CodecError) as caught:
        encode(value, "It")

    assert f" - at `{path}`" in str(caught.value)
    assert not re.search("dict|list|tuple|Box", str(caught.value))


def test_error_says_what_payloads_are_made_of():
    """Where a type has no form, rather than one value of it."""
    with pytest.raises(CodecError) as caught:
        encode(object(), "Result")

    assert str(caught.value) == (
        "Result: Encoding objects of type object is unsupported. Payloads are attrs classes, "
        "dataclasses, msgspec structs and builtins."
    )


def test_nesting_without_end_is_refused():
    """A value that contains itself is an error, not a crash."""
    value: list[object] = []
    value.append(value)
    with pytest.raises(CodecError):
        encode(value, "It")


def test_size_is_bounded():
    """One byte over the limit is refused, with size and limit; the limit itself is fine."""
    assert b"x" * MAX_PAYLOAD == check_size(b"x" * MAX_PAYLOAD, "It")
    with pytest.raises(PayloadTooLargeError, match="reference") as caught:
        check_size(b"x" * (MAX_PAYLOAD + 1), "It")

    assert (MAX_PAYLOAD + 1, MAX_PAYLOAD) == (caught.value.size, caught.value.limit)


@pytest.mark.parametrize(
    ("data", "type_"),
    [
        (b"", int),
        (b"\xc1", object),
        (encode("x", "It"), int),
        (encode({"name": 7, "colour": "red"}, "It"), Attrs),
        (encode({"name": "x", "colour": "blue"}, "It"), Attrs),
        (b"\x91" * 100_000, object),
        (encode(1, "It") + b"\x00", int),
    ],
)
def test_other_bytes_are_refused(data, type_):
    """Bytes that are no value of the type are one clear error, whatever is wrong with them."""
    with pytest.raises(CodecError, match=r"^It: "):
        decode(data, type_, "It")


def test_error_has_the_path():
    """The error says where in the value it found what it could not take."""
    with pytest.raises(CodecError, match=r"\$\.parts\[0\]\.name"):
        decode(encode({"parts": [{"name": 7, "colour": "red"}]}, "It"), Struct, "It")


def test_impossible_types_are_refused():
    """A type that msgpack has no form for is the definition's fault, not the data's."""
    with pytest.raises(DefinitionError):
        decoder_for(int | Attrs | Struct)
