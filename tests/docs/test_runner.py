"""The runner of pages itself: it fails where a page is wrong."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from sybil.example import SybilFailure

from .pages import Runner

FENCE = "```"


def run(tmp_path: Path, text: str) -> Runner:
    """Run a page of this text, in which ''' stands for a fence."""
    page = tmp_path / "page.md"
    page.write_text(dedent(text).replace("'''", FENCE), "utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    runner = Runner(page, folder)
    runner.run()
    return runner


def test_blocks_share_one_module_and_show_what_they_print(tmp_path: Path) -> None:
    page = """
        '''python
        x = 20
        '''

        '''python
        print(x + 1, "and more")
        '''

        '''text
        21 and ...
        '''

        '''pycon
        >>> x + 2
        22
        '''
        """
    assert 4 == run(tmp_path, page).ran


def test_files_are_written_and_commands_run_beside_them(tmp_path: Path) -> None:
    page = """
        '''python
        # hello.py
        import sys
        print("hello", *sys.argv[1:])
        sys.exit(len(sys.argv) - 1)
        '''

        '''console
        $ python hello.py
        hello
        $ python hello.py 'you there'
        hello you there
        $ echo $?
        1
        $ stepwell --version
        stepwell ...
        '''
        """
    run(tmp_path, page)


@pytest.mark.parametrize(
    "page",
    [
        "'''python\n1 / 0\n'''\n",
        "'''python\ndef test_it():\n    assert False\n'''\n",
        "'''python\nprint('shown nowhere')\n'''\n",
        "'''python\nprint(1)\n'''\n\n'''text\n2\n'''\n",
        "'''text\nout of nothing\n'''\n",
        "'''pycon\n>>> 1 + 1\n3\n'''\n",
        "'''console\n$ python -c 'print(1)'\n2\n'''\n",
        "'''console\n$ python -c 'raise SystemExit(3)'\n'''\n",
        "'''console\n$ python -c 'raise SystemExit(3)'\n$ python -c ''\n'''\n",
    ],
)
def test_a_wrong_page_fails(tmp_path: Path, page: str) -> None:
    with pytest.raises((SybilFailure, AssertionError, ZeroDivisionError)):
        run(tmp_path, page)
