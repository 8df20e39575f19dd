"""The demo's workflow, simulated; and its handlers, called."""

from contextlib import nullcontext

import pytest

from pwf import Context, gather, publish, result
from pwf.cli._audit import differences
from pwf.cli._index import File, Folder, Report, add_up_folder, index, index_folder, library
from pwf.cli._journal import Journal
from pwf.cli._source import Counts, count_by_folder
from pwf.testing import simulate


class Silent(Journal):
    def __init__(self):
        pass

    def execution(self, ctx, what):
        return nullcontext()


@pytest.fixture
def tree(tmp_path):
    for number, path in enumerate(["a.py", "b/c.py", "b/d.py", "b/e/f.py"]):
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text("import x\n" * number)
    return str(tmp_path)


def test_the_whole_workflow_equals_a_plain_loop(tree, tmp_path):
    journal = tmp_path / "journal"

    simulation = simulate(publish(index, tree, None), library, resources=[lambda: Journal(journal)])

    report = simulation.result(Report)
    assert differences(report, count_by_folder(tree)) == []
    assert report.counts == Counts(files=4, lines=6, imports=6)
    assert [path for folder in report.folders for path, _ in folder.calls] == [
        "a.py", "b/c.py", "b/d.py", "b/e/f.py",
    ]  # fmt: skip


def test_a_folder_is_one_call_per_file_and_a_sum():
    ctx = Context.for_test(resources=[Silent()])

    assert index_folder(ctx, "/r", "b", []) == gather([], then=publish(add_up_folder, "b"))


def test_a_sum_names_the_calls_it_has_added_up():
    files = [File("b/c.py", "1", Counts(files=1)), File("b/d.py", "2", Counts(files=1))]
    ctx = Context.for_test(results=files, resources=[Silent()])

    expected = Folder("b", Counts(files=2), [("b/c.py", "1"), ("b/d.py", "2")])
    assert add_up_folder(ctx, "b") == result(expected)
