"""`assert_deterministic` and `assert_ends`: mistakes that no answer brings to light by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stepwell import Codec, Flow, InvalidInputError, Sleep, Step, workflow
from stepwell.testing import DeadEndError, NotDeterministicError, assert_deterministic, assert_ends

from . import planted_flows as planted
from . import planted_worlds as worlds

coder = Codec()


@workflow
def plain(n: int) -> Flow[int]:
    yield Sleep(n)
    return n


def test_a_workflow_that_is_deterministic_passes() -> None:
    assert_deterministic(planted.well, "x", examples=50)


@pytest.mark.parametrize(
    ("wrong", "parting"),
    [
        (planted.iterates_over_a_set, "with PYTHONHASHSEED="),
        (planted.reads_a_clock, "the second time:"),
        (planted.reads_the_hour, "it calls datetime.now() in planted_flows.py:"),
        (planted.keeps_a_global, "the first time:"),
        (planted.takes_a_chance, "the second time:"),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_a_planted_mistake_is_found_within_500_examples(wrong: Any, parting: str) -> None:
    """Measured in 28 runs with other seeds: the set after 3 to 26 examples, the global after 3 to 9, others after 1."""
    planted.seen.clear()
    with pytest.raises(NotDeterministicError, match=f"workflow '{wrong.name}' is not deterministic") as caught:
        assert_deterministic(wrong, "x", examples=500)
    assert caught.value.examples <= 500
    assert parting in str(caught.value)
    assert f"replay({wrong.name}, 'x', history=[" in str(caught.value)
    assert "yield Now()" in str(caught.value)


def test_what_is_found_is_short_and_shows_where_the_two_part() -> None:
    with pytest.raises(NotDeterministicError) as caught:
        assert_deterministic(planted.iterates_over_a_set, "x", examples=500)
    assert 4 >= len(caught.value.run.answers) >= 2, "a look, and a step for each of a few topics, not all of them"
    assert "After event 1 (step) it comes to:\n  the first time: " in str(caught.value)
    assert "in iterates_over_a_set)" in str(caught.value)


def test_a_call_that_changes_nothing_today_counts_only_when_it_is_looked_for() -> None:
    assert_deterministic(planted.reads_the_hour, "x", examples=20, hash_seeds=(), watch=False)


@pytest.mark.parametrize(
    ("wrong", "called"),
    [
        (worlds.reads_the_environment, "os.environ in planted_worlds.py:"),
        (worlds.looks_into_the_environment, "os.environ in planted_worlds.py:"),
        (worlds.opens_a_file, "open() in planted_worlds.py:"),
        (worlds.reads_a_path, "Path.exists() in planted_worlds.py:"),
        (worlds.throws_dice, "random.random() in planted_worlds.py:"),
        (worlds.asks_a_helper, "time.time() in planted_helpers.py:"),
        (worlds.asks_a_module, "time.time() in planted_helpers.py:"),
        (worlds.asks_an_object, "time.time() in planted_helpers.py:"),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_a_look_at_the_world_is_found_though_it_comes_to_the_same(wrong: Any, called: str) -> None:
    with pytest.raises(NotDeterministicError) as caught:
        assert_deterministic(wrong, "x", examples=5, hash_seeds=())
    assert f"it calls {called}" in str(caught.value)


def test_a_workflow_inside_a_function_needs_no_other_process_when_it_says_so() -> None:
    @workflow
    def inner(n: int) -> Flow[int]:
        yield Sleep(n)
        return n

    with pytest.raises(InvalidInputError, match="Define it at the top of the module, not inside a function") as caught:
        assert_deterministic(inner, 1)
    assert "hash_seeds=()" in str(caught.value)
    assert_deterministic(inner, 1, hash_seeds=(), examples=5)


def test_a_workflow_without_a_file_needs_no_other_process_when_it_says_so() -> None:
    names: dict[str, Any] = {"__name__": "typed_at_a_prompt"}
    exec("def typed(n: int):\n    from stepwell import Sleep\n    yield Sleep(n)", names)
    with pytest.raises(InvalidInputError, match="which has no file"):
        assert_deterministic(workflow(names["typed"]), 1)


def test_a_codec_is_found_in_the_workflows_module_or_refused() -> None:
    assert_deterministic(plain, 1, codec=coder, examples=5, hash_seeds=(3,))
    with pytest.raises(InvalidInputError, match="the codec is no variable of"):
        assert_deterministic(plain, 1, codec=Codec(), examples=5)


def test_a_module_that_can_not_be_imported_again_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "once_only.py"
    module.write_text(
        "import os\nfrom pathlib import Path\nfrom stepwell import Sleep, workflow\n"
        "mark = Path(__file__).with_suffix('.mark')\n"
        "if mark.exists(): raise RuntimeError('imported again')\nmark.touch()\n"
        "@workflow\ndef once(n: int):\n    yield Sleep(n)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import once_only  # type: ignore[import-not-found]

    with pytest.raises(InvalidInputError, match=r"can't import the workflow.*RuntimeError: imported again"):
        assert_deterministic(once_only.once, 1)


def test_a_program_that_is_run_can_test_itself(tmp_path: Path) -> None:
    """Its module is called `__main__` here and is imported by its file there."""
    program = tmp_path / "program.py"
    program.write_text(
        "from stepwell import Flow, Sleep, workflow\nfrom stepwell.testing import assert_deterministic\n"
        "@workflow\ndef waits(n: int) -> Flow[None]:\n    yield Sleep(abs(n) % 7)\n"
        "if __name__ == '__main__':\n    assert_deterministic(waits, ..., examples=5)\n    print('well')\n"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("well\n", "") == (done.stdout, done.stderr)


@pytest.mark.parametrize("wrong", [0, True, "many"])
def test_a_wrong_number_of_examples_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="examples must be"):
        assert_deterministic(plain, 1, examples=wrong, hash_seeds=())


def test_hypothesis_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(InvalidInputError, match=r"pip install 'stepwell\[test\]'"):
        assert_deterministic(plain, 1)


def test_the_kit_does_not_import_hypothesis_by_itself() -> None:
    code = "import stepwell.testing, sys\nassert 'hypothesis' not in sys.modules and 'pytest' not in sys.modules"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True)


# ---- dead ends


@pytest.mark.parametrize("fine", [planted.well, planted.polls, planted.waits_for_what_nobody_sends])
def test_a_workflow_that_can_end_passes(fine: Any) -> None:
    """Also one that may poll for long, and one whose every signal is sent."""
    assert_ends(fine, "x")


def test_a_wait_for_what_nobody_sends_is_found() -> None:
    """Measured: after 3 to 24 examples, in 28 runs with other seeds."""
    with pytest.raises(DeadEndError) as caught:
        assert_ends(planted.waits_for_what_nobody_sends, "x", signals=[planted.review], examples=500)
    assert caught.value.examples <= 500
    assert "then it waits for suspend 'appeal' at 2, and nothing can come" in str(caught.value)
    assert 2 == len(caught.value.run.answers)


def test_a_loop_that_no_answer_ends_is_found() -> None:
    """Measured: after 2 to 10 examples, in 28 runs with other seeds."""
    with pytest.raises(DeadEndError, match="comes to a place from which it does not end") as caught:
        assert_ends(planted.polls_for_ever, "x", examples=500)
    assert caught.value.examples <= 500
    assert "step 'poll' at planted_flows.py:" in str(caught.value)
    assert "received(review, Verdict(approved=True, reviewer=''))," in str(caught.value)


def test_a_step_that_always_fails_is_no_dead_end() -> None:
    @workflow
    def hopeless() -> Flow[None]:
        yield Step(planted.tell, "x")
        raise LookupError("always")

    assert_ends(hopeless, examples=20)
