"""What services, tasks, events and addresses may be called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pwf_core.errors import DefinitionError
from pwf_core.names import MAX_NAME, address_of, check_address, check_event, check_name, service_of


@pytest.mark.parametrize(
    "name", ["users", "größe 🎉", "a-b_c", "*?[x]{y}:/", "x" * MAX_NAME, "é" * 50]
)
def test_ordinary_names_are_fine(name):
    """Any printable text of up to a hundred bytes without a dot names a service, task or event."""
    assert name == check_name(name, "service")
    assert name == check_event(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "empty"),
        ("a.b", "dot"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\u2028b", "control"),
        ("\ud800", "control"),
        ("x" * (MAX_NAME + 1), "101 bytes"),
        ("é" * 51, "102 bytes"),
        (7, "int"),
        (None, "NoneType"),
        (b"users", "bytes"),
    ],
)
def test_impossible_names_are_refused(name, says):
    """What cannot be a name is refused where it is defined, with what is wrong with it."""
    with pytest.raises(DefinitionError, match=says):
        check_name(name, "service")


def test_refusal_reads_well():
    """The kind of name takes no article, whichever it is."""
    with pytest.raises(DefinitionError, match=r"^The event name is a string, not 5 \(int\)\.$"):
        check_event(5)


def test_events_may_have_dots():
    """The dot is reserved in addresses only."""
    assert "order.paid" == check_event("order.paid")


@pytest.mark.parametrize("address", ["users", ".task", "users.", "a.b.c", "", "a\n.b", 7, None])
def test_impossible_addresses_are_refused(address):
    """An address is a service, one dot and a task."""
    with pytest.raises(DefinitionError):
        check_address(address)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_address_comes_apart_as_it_was_put_together(service, task):
    """Whatever names are allowed, the address of a task tells its service."""
    try:
        check_name(service, "service")
        check_name(task, "task")
    except DefinitionError:
        return

    address = address_of(service, task)
    assert address == check_address(address)
    assert service == service_of(address)
