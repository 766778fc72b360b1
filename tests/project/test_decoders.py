"""msgspec finds out at first use what a Struct is made of, and another thread that decodes meanwhile sees half of that:
the process dies of it. So a decoder of a Struct is made when its module is imported, and never as it is used.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from stepwell.testing.contract import a_head
from stepwell_stores.s3.entries import Held, State

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "engine").rglob("*.py"), *(ROOT / "stores").rglob("*.py")])


def test_no_decoder_is_made_as_it_is_used() -> None:
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "msgspec.json.decode":
                found += [f"{path.relative_to(ROOT)}:{node.lineno}" for word in node.keywords if word.arg == "type"]
    assert [] == found, "make a msgspec.json.Decoder(...) of it at the top of the module"


@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
def test_threads_that_decode_for_the_first_time_at_once_do_so_whole() -> None:
    """In processes of their own, since what a Struct is made of is found out once in each."""
    state = State("r", 1, 1, "n", 1, 0, 1, False, a_head(), 0, 0, 1, 1, Held("o", 1))
    data = msgspec.json.encode(state)
    program = f"""
import os, threading
from stepwell_stores.s3 import entries
for n in range(40):
    pid = os.fork()
    if not pid:
        bar = threading.Barrier(8)
        def one():
            bar.wait()
            for _ in range(20): entries._read_state({data!r})
        threads = [threading.Thread(target=one) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert {"0": 40} == Counter(done.stdout.split())
