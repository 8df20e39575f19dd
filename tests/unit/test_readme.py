"""The Python of README and docs runs as it stands there, on memory, and prints what stands below it."""

import logging
import re
import sys
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/tutorial.md"]

# A block of Python, and the text right below it, which is what it prints.
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```$(?:\n+```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!https?://|#)(?P<path>[^)#\s]+)(?:#[^)]*)?\)")


@pytest.fixture
def module():
    """A fresh module for a page, found where annotations are resolved."""
    module = ModuleType("page_under_test")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]
    logging.getLogger("shop").handlers.clear()  # the tutorial's own; its stdout is gone


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page, module, capsys, monkeypatch):
    """The blocks of a page run in order, as one program, and print what the page says."""
    monkeypatch.delenv("PWF_URL", raising=False)
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))

    assert blocks

    for block in blocks:
        above = text.count(
            "\n", 0, block.start("code")
        )  # so that a traceback names the page's line
        code = compile("\n" * above + block["code"], page, "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102 -- it is our own
        assert capsys.readouterr().out == (block["output"] or ""), f"{page}, line {above}"


@pytest.mark.parametrize(
    "page", [*PAGES, "CONTRIBUTING.md", "docs/deployment.md", "examples/README.md"]
)
def test_links_lead_somewhere(page):
    """Every relative link names a file of the repository."""
    path = ROOT / page
    links = {link["path"] for link in LINK.finditer(path.read_text(encoding="utf-8"))}

    assert links
    assert {link for link in links if not (path.parent / link).exists()} == set()


def test_every_fence_is_closed_and_named():
    """A block without a language would silently not be run."""
    for page in PAGES:
        fences = re.findall(r"^```(\w*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
        for number, language in zip(count(), fences, strict=False):
            assert bool(language) is (number % 2 == 0), f"{page}, fence {number + 1}"
        assert len(fences) % 2 == 0, page
