"""What the demo concludes from its journal and its report."""

import attrs
import pytest

from pwf.cli._audit import Witness, audit, differences
from pwf.cli._index import Folder, Report
from pwf.cli._journal import VARIABLE, Journal, Line, Reader, open_journal
from pwf.cli._source import Counts
from pwf.logs import CurrentCall, current_call
from pwf_core.context import Context
from pwf_core.errors import ConfigurationError

EXPECTED = {".": ["a.py", "b.py"]}
A = Counts(files=1, lines=3)
B = Counts(files=1, lines=4)
BOTH = Counts(files=2, lines=7)


def report(*calls):
    return Report(BOTH, [Folder(".", BOTH, list(calls))])


def line(word="start", call_id="1", *, attempt=1, what="a.py", task="library.count_file"):
    return Line(word, "r", call_id, attempt, 7, task, what)


def found(the_report, *lines):
    witness = Witness()
    witness.hear(lines)
    return audit(EXPECTED, the_report, witness)


GOOD = report(("a.py", "1"), ("b.py", "2"))


def test_nothing_is_wrong_with_a_plain_run():
    result = found(GOOD, line(), line("end"), line(call_id="2", what="b.py"))

    assert attrs.asdict(result) == {
        "calls": 2,
        "executions": 2,
        "redelivered": 0,
        "doubled": 0,
        "lost": 0,
    }


def test_a_later_attempt_is_a_redelivery_and_no_double():
    result = found(GOOD, line(), line(attempt=2), line(attempt=3), line(call_id="2", what="b.py"))

    assert (result.executions, result.redelivered, result.doubled) == (4, 1, 0)


def test_a_file_that_is_in_the_report_twice_is_doubled():
    assert found(report(("a.py", "1"), ("a.py", "1"), ("b.py", "2")), line()).doubled == 1


def test_a_file_that_two_calls_were_made_for_is_doubled():
    assert found(GOOD, line(), line(call_id="3")).doubled == 1


def test_a_file_that_is_not_in_the_report_is_lost():
    assert found(report(("a.py", "1")), line()).lost == 1


def test_progress_counts_a_file_once():
    witness = Witness()
    witness.hear([line("end"), line("end", attempt=2), line("end", "3", task="library.index")])

    assert witness.counted == {"1"}


def test_an_equal_report_has_no_differences():
    assert differences(GOOD, {".": BOTH}) == []


@pytest.mark.parametrize(
    "other",
    [
        Report(BOTH, []),
        Report(A, [Folder(".", BOTH, [])]),
        Report(BOTH, [Folder(".", A, [])]),
        Report(BOTH, [Folder(".", BOTH, []), Folder(".", BOTH, [])]),
        Report(BOTH, [Folder(".", BOTH, []), Folder("b", A, [])]),
    ],
)
def test_any_difference_is_found(other):
    assert differences(other, {".": BOTH})


def test_what_is_written_is_read_once(tmp_path):
    path = tmp_path / "journal"
    reader = Reader(path, "r")
    assert reader.read() == []
    token = current_call.set(CurrentCall("r", "1", "library.count_file"))
    ctx = Context(run_id="r", call_id="1", attempt=2)
    with Journal(path) as journal, journal.execution(ctx, "new\nline.py"):
        (first,) = reader.read()
    current_call.reset(token)
    (second,) = reader.read()

    assert (first.word, second.word) == ("start", "end")
    assert first.task == "library.count_file"
    assert first.what == "new\nline.py"
    assert reader.read() == []


def test_lines_of_other_runs_and_unfinished_lines_are_left_alone(tmp_path):
    path = tmp_path / "journal"
    with Journal(path) as journal, journal.execution(Context(run_id="x", call_id="1"), "a.py"):
        pass
    path.write_bytes(path.read_bytes() + b'["start","r"')

    assert Reader(path, "r").read() == []


def test_an_execution_that_raises_has_no_end(tmp_path):
    path = tmp_path / "journal"
    with (
        pytest.raises(ZeroDivisionError),
        Journal(path) as journal,
        journal.execution(Context(run_id="r", call_id="1"), "a.py"),
    ):
        _ = 1 / 0

    assert [line.word for line in Reader(path, "r").read()] == ["start"]


def test_the_environment_has_to_name_a_journal(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigurationError, match=VARIABLE):
        open_journal()
