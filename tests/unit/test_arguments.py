"""Arguments: from what `publish` is given to bytes, and to what the handler takes."""

from __future__ import annotations

from typing import Annotated, Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pwf_core.arguments import Parameters, encode_untyped, show
from pwf_core.context import Context
from pwf_core.errors import CodecError, DefinitionError, PayloadTooLargeError

pack = msgspec.msgpack.encode


@attrs.define
class Left:
    number: int


@attrs.define
class Right:
    number: int


def handler(one: int, two: str = "x", *, three: float = 0.5) -> None: ...


HANDLER = Parameters("work.handler", handler, skip=0)


def read(parameters: Parameters, *args: Any, **kwargs: Any) -> Any:
    return parameters.decode(parameters.encode(args, kwargs))


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1,), {}, ([1, "x"], {"three": 0.5})),
        ((1, "y"), {}, ([1, "y"], {"three": 0.5})),
        ((), {"one": 1}, ([1, "x"], {"three": 0.5})),
        ((1,), {"three": 2.0}, ([1, "x"], {"three": 2.0})),
        ((1,), {"two": "y", "three": 2.0}, ([1, "y"], {"three": 2.0})),
    ],
)
def test_arguments_reach_the_handler(args, kwargs, expected):
    """Positions, names and defaults come out as the handler's signature has them."""
    assert expected == read(HANDLER, *args, **kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        (("x",), {}),
        ((1, 2), {}),
        ((1, "x", 2.0), {}),
        ((1,), {"one": 1}),
        ((1,), {"four": 1}),
        ((1,), {"three": "x"}),
        ((object(),), {}),
        ((2**64,), {}),
    ],
)
def test_wrong_arguments_are_refused_at_once(args, kwargs):
    """What the handler could not take is refused where it is published, naming the task."""
    with pytest.raises(CodecError, match=r"work\.handler"):
        HANDLER.encode(args, kwargs)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (encode_untyped("work.handler", (1,), {}), ([1, "x"], {"three": 0.5})),
        (encode_untyped("work.handler", (1, "y"), {}), ([1, "y"], {"three": 0.5})),
        (encode_untyped("work.handler", (), {"one": 1}), ([1, "x"], {"three": 0.5})),
        (encode_untyped("work.handler", (1,), {"three": 2.0}), ([1, "x"], {"three": 2.0})),
        (encode_untyped("work.handler", (1,), {"two": "y"}), ([1, "y"], {"three": 0.5})),
    ],
)
def test_untyped_arguments_reach_the_handler(body, expected):
    """Code that knows the address only publishes positions, names, or both."""
    assert expected == HANDLER.decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        pack(7),
        pack([]),
        pack(["x"]),
        pack([1, "y", 2.0]),
        pack({"one": 1, "four": 4}),
        pack({0: 1, "one": 2}),
        pack({5: 1}),
        pack({-1: 1}),
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 50_000,
    ],
)
def test_other_bodies_are_refused(body):
    """Bytes that are none of the task's arguments are one clear error."""
    with pytest.raises(CodecError, match=r"work\.handler"):
        HANDLER.decode(body)


@given(st.binary(max_size=40))
def test_garbage_is_refused_or_read(body):
    """No bytes raise anything but a CodecError."""
    try:
        args, kwargs = HANDLER.decode(body)
    except CodecError:
        return

    assert (2, {"three"}) == (len(args), set(kwargs))


def test_many_parameters():
    """A handler may have more parameters than fit a short map."""
    names = [f"a{number}" for number in range(40)]
    scope: dict[str, Any] = {}
    exec(f"def many({', '.join(f'{name}: int' for name in names)}): ...", scope)  # noqa: S102
    parameters = Parameters("work.many", scope["many"], skip=0)

    values = list(range(40))
    assert (values, {}) == parameters.decode(parameters.encode(values, {}))
    assert (values, {}) == parameters.decode(encode_untyped("work.many", values, {}))


def test_context_is_no_argument():
    """Leading parameters that the worker fills are skipped."""

    def with_context(ctx: Context, one: int) -> None: ...

    parameters = Parameters("work.handler", with_context, skip=1)
    assert ([1], {}) == read(parameters, 1)


def test_parameters_may_have_any_name():
    """Names that mean something elsewhere are fine, and so is having none."""

    def odd(self: int, class_: int, p0: int, _under: int) -> None: ...

    def none() -> None: ...

    assert ([1, 2, 3, 4], {}) == read(Parameters("work.odd", odd, skip=0), 1, 2, 3, 4)
    assert ([], {}) == read(Parameters("work.none", none, skip=0))


def test_mutable_default_is_the_handlers_own():
    """A default reaches the handler as the very object that its signature has."""
    default: list[int] = []

    def odd(numbers: list[int] = default) -> None: ...

    args, _ = read(Parameters("work.odd", odd, skip=0))
    assert args[0] is default


def test_annotations_are_checked_deeply():
    """Constraints and nested types count, with the path of what is wrong."""

    def deep(items: list[Annotated[int, msgspec.Meta(ge=1)]]) -> None: ...

    with pytest.raises(CodecError, match=r"\$\.items\[1\]"):
        Parameters("work.deep", deep, skip=0).encode(([1, 0],), {})


def test_unnamed_parameters_are_refused():
    """A task names its parameters."""

    def star(*args: int) -> None: ...

    def stars(**kwargs: int) -> None: ...

    for fn in (star, stars):
        with pytest.raises(DefinitionError, match="names its parameters"):
            Parameters("work.star", fn, skip=0)


def test_unknown_annotations_are_refused():
    """An annotation that cannot be resolved, or travel, is the definition's fault."""

    def unresolved(one: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def impossible(one: Left | Right) -> None: ...

    with pytest.raises(DefinitionError, match="Nowhere"):
        Parameters("work.unresolved", unresolved, skip=0)
    with pytest.raises(DefinitionError, match="cannot travel"):
        Parameters("work.impossible", impossible, skip=0)


@pytest.mark.parametrize("value", [object(), 2**70, "\ud800"])
def test_argument_without_a_form_is_named(value):
    """By its parameter, or by its position where only that is known."""
    with pytest.raises(CodecError, match=r"^Arguments of work\.handler: .* at `\$\.two`"):
        HANDLER.encode((1, value), {})
    for args, kwargs, path in [
        ((1, value), {}, r"\$\[1\]"),
        ((), {"two": [value]}, r"\$\.two\[0\]"),
        ((1, value), {"three": 1.0}, r"\$\[1\]"),
    ]:
        with pytest.raises(CodecError, match=rf"^Arguments of work\.handler: .* at `{path}`"):
            encode_untyped("work.handler", args, kwargs)


def test_size_is_bounded():
    """All arguments together have one limit."""
    with pytest.raises(PayloadTooLargeError):
        HANDLER.encode((1, "x" * 1024 * 1024), {})
    with pytest.raises(PayloadTooLargeError):
        encode_untyped("work.handler", ("x" * 1024 * 1024,), {})


def test_arguments_are_shown_as_written():
    """People see a call, shortened."""
    assert ["1", "three=2.0"] == show(encode_untyped("work.handler", (1,), {"three": 2.0}))
    (shown,) = show(pack(["x" * 1000]))
    assert len(shown) < 100
