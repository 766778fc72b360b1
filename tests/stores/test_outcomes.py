"""What callers see when a store is away: one error with one code, whichever store it is."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.servers.launching import free_port

from stepwell import Engine, Flow, Step, StoreUnavailableError, workflow
from stepwell.recorder import settle
from stepwell.store import Created, Lease, NotApplied, Store, Unknown
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores import open_store
from stepwell_stores.outcomes import AmbiguousError, NotWrittenError, outcome_of
from stepwell_stores.s3 import bucket
from stepwell_stores.sqlite import database

SECRET = "hunter2"


@workflow
def adds() -> Flow[int]:
    return (yield from Step(int, "4"))


@pytest.fixture(params=["postgresql", "redis", "s3", "sqlite"])
def away(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL whose server refuses; for a file, one whose disk has no room for another open file."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    port = free_port()
    monkeypatch.setattr(bucket, "_PAUSES", (0.01,))
    if request.param == "sqlite":

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(database, "connect", full)
    return {
        "postgresql": f"postgresql://me:{SECRET}@127.0.0.1:{port}/runs",
        "redis": f"redis://:{SECRET}@127.0.0.1:{port}/0",
        "s3": f"s3://runs/here?endpoint=http://127.0.0.1:{port}",
        "sqlite": f"sqlite:///{tmp_path}/runs.db",
    }[request.param]


def test_who_calls_a_store_that_is_away_is_told_so_by_one_code_and_with_a_remedy(away: str) -> None:
    with closing(open_store(away)) as store:
        lease = Lease("r", 0, 1, 1, "me", 0)
        for call in (
            lambda: store.head("r"),
            lambda: store.claim("r", "me", 30),
            lambda: store.claim_due("me", 30, now=0, limit=1),
            lambda: store.renew(lease, 30),
            lambda: store.release(lease),
            lambda: store.delete("r", 0),
            store.next_due,
        ):
            with pytest.raises(StoreUnavailableError) as caught:
                call()
            assert caught.value.code == "STORE_UNAVAILABLE"
            assert "; " in caught.value.message
            assert SECRET not in repr(caught.value)
        assert written(store) in ([NotApplied()] * 2, "unavailable")


def written(store: Store) -> list[object] | str:
    """What becomes of writes, or that they can't even begin."""
    try:
        made = store.create("r", [a_start()], head=a_head(), attempt_id="a")
        return [made, store.append("r", 0, 1, [a_record()], attempt_id="b", head=a_head(), fence=1)]
    except StoreUnavailableError:
        return "unavailable"


def test_who_starts_a_run_is_told_the_same(away: str) -> None:
    with Engine(away, workflows=[adds]) as engine, pytest.raises(StoreUnavailableError) as caught:
        engine.start(adds, run_id="r")
    assert (caught.value.code, caught.value.retryable) == ("STORE_UNAVAILABLE", True)


def test_both_kinds_of_failure_are_one_to_callers_and_two_to_the_engine() -> None:
    def fails(error: Exception) -> None:
        raise error

    assert outcome_of(lambda: fails(NotWrittenError("no"))) == NotApplied()
    assert outcome_of(lambda: fails(AmbiguousError("perhaps"))) == Unknown()
    assert outcome_of(lambda: 1) == 1
    for error in (NotWrittenError("no"), AmbiguousError("perhaps")):
        assert (error.code, error.retryable) == ("STORE_UNAVAILABLE", True)


class Answers:
    """A store that says so much of each write, in turn, and the clock beside it."""

    def __init__(self, *said: object, takes: float = 0) -> None:
        self.said, self.pauses = list(said), list[float]()
        self.time, self.takes = datetime(2026, 3, 1, tzinfo=UTC), timedelta(seconds=takes)

    def __call__(self) -> Any:
        self.time += self.takes
        return self.said.pop(0) if len(self.said) > 1 else self.said[0]

    def now(self) -> datetime:
        return self.time

    def wait(self, _: object, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((NotApplied(),), "did not take the start of run 'r'"),
        ((Unknown(),), "can't say whether the start of run 'r' was written"),
        ((Unknown(), NotApplied()), "can't say whether the start of run 'r' was written"),
    ],
)
def test_a_write_that_may_be_there_is_never_told_as_one_that_is_not(said: tuple[object, ...], words: str) -> None:
    answers: Any = Answers(*said)
    with pytest.raises(StoreUnavailableError, match=words):
        settle(answers, answers, "the start of run 'r'")
    assert answers.pauses == sorted(answers.pauses)
    assert len(answers.pauses) == 7


def test_a_server_that_does_not_answer_is_not_waited_for_eight_times() -> None:
    answers: Any = Answers(NotApplied(), takes=12)
    with pytest.raises(StoreUnavailableError, match="after 4 tries"):
        settle(answers, answers)


def test_a_start_waits_for_a_store_that_comes_back() -> None:
    answers: Any = Answers(NotApplied(), NotApplied(), Created())
    done: Any = settle(answers, answers)
    assert done == Created()
    assert len(answers.pauses) == 2
