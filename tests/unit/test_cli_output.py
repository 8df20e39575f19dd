"""What reaches a terminal, and what does not."""

import pytest

from pwf.cli._output import as_json, last_line
from pwf.cli._problems import explain, without_passwords
from pwf_core.texts import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 漢 😀", "plain ü 漢 😀"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x9b1m \u202e \x00 \ud800", r"\x9b1m \u202e \x00 \ud800"),
    ],
)
def test_only_printable_characters_are_shown(text, shown):
    assert printable(text) == shown


def test_lines_are_kept_where_they_are_wanted():
    assert printable("a\nb\x1b", multiline=True) == "a\nb\\x1b"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, None, "ü"]}, '{"a":[1,null,"ü"]}'),
        (b"\xff", '"/w=="'),
        ({1: 2}, '{"1":2}'),
        ({(1, 2): 3}, '{"(1, 2)":3}'),
        (1j, '"1j"'),
        ("\x1b\x9b\u202e\u2028\n", r'"\u001b\u009b\u202e\u2028\n"'),
        ({"\U000e0041": 1}, r'{"\udb40\udc41":1}'),
    ],
)
def test_every_value_has_a_json_form(value, text):
    assert as_json(value) == text


def test_the_last_line_of_a_traceback_names_the_error():
    assert last_line("Traceback:\n  File x\nValueError: \x1bboom\n\n") == r"ValueError: \x1bboom"
    assert last_line("") == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://u:pass@h:1/0 is down", "redis://u:***@h:1/0 is down"),
        ("redis://:pass@h is down", "redis://:***@h is down"),
        (
            "write amqp://user:password@host:port/vhost",
            "write amqp://user:password@host:port/vhost",
        ),
        ("amqp://user:password@h is down", "amqp://user:***@h is down"),
        ("amqp://user:password@host.org is down", "amqp://user:***@host.org is down"),
        ("amqp://u:p:@:w@h?store=redis://x:y@z", "amqp://u:***@h?store=redis://x:***@z"),
        ("redis://h:1/0 and a@b", "redis://h:1/0 and a@b"),
    ],
)
def test_passwords_are_masked(text, shown):
    assert without_passwords(text) == shown


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (
            ValueError("Run failed: Traceback:\n  File\nKeyError: 1\n"),
            "Run failed: Traceback: … KeyError: 1",
        ),
        (ValueError(), "ValueError"),
    ],
)
def test_an_error_is_one_line(error, line):
    assert explain(error) == line
