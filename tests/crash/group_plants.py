"""Bugs of a group commit, each in what becomes of those who wait while another thread writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepwell.errors import StoreError
from stepwell_stores.group_commit import GroupCommit

__all__ = ["GROUP_PLANTS"]


def _told_early() -> None:
    """Who waits is told as soon as its statements are made; COMMIT comes after that."""

    def together(self: Any, group: list[Any]) -> bool:
        def work(db: Any) -> list[Any]:
            results = [write.work(db) for write in group]
            for write, result in zip(group[1:], results[1:], strict=True):
                write.ended(result)
                write.turn.release()
            del group[1:]
            return results

        try:
            group[0].ended(self._transact(work)[0])
        except StoreError as error:
            group[0].ended(None, error)
        except Exception:
            return False
        return True

    GroupCommit._together = together  # type: ignore[method-assign]


def _failure_told_as_success() -> None:
    """When COMMIT fails, each is told what its statements gave."""

    def together(self: Any, group: list[Any]) -> bool:
        results: list[Any] = []
        try:
            self._transact(lambda db: results.extend(write.work(db) for write in group))
        except StoreError as error:
            if len(results) < len(group):  # not even the statements went well
                results[:] = [None] * len(group)
                for write in group:
                    write.ended(None, error)
                return True
        except Exception:
            return False
        for write, result in zip(group, results, strict=True):
            write.ended(result)
        return True

    GroupCommit._together = together  # type: ignore[method-assign]


def _written_so(how: Callable[[Any, int, list[Any]], Any]) -> None:
    """Have the n-th write of each group written in another way."""

    def together(self: Any, group: list[Any]) -> bool:
        try:
            results = self._transact(lambda db: [how(db, n, group) for n in range(len(group))])
        except StoreError as error:
            for write in group:
                write.ended(None, error)
        except Exception:
            return False
        else:
            for write, result in zip(group, results, strict=True):
                write.ended(result)
        return True

    GroupCommit._together = together  # type: ignore[method-assign]


def _one_dropped() -> None:
    """Of three or more the last is told that it was written, and is not."""

    def how(db: Any, n: int, group: list[Any]) -> Any:
        if n < 2 or n != len(group) - 1:
            return group[n].work(db)
        db.execute("SAVEPOINT dropped")
        result = group[n].work(db)
        db.execute("ROLLBACK TO dropped")
        return result

    _written_so(how)


def _written_twice() -> None:
    """What those who wait ask for is done twice in the transaction; they are told of the first time.

    An append that is made twice lands once: its position is taken, and its attempt is known. So only claims tell: the
    second one takes leases of more runs, which nobody drives.
    """

    def how(db: Any, n: int, group: list[Any]) -> Any:
        result = group[n].work(db)
        if n:
            group[n].work(db)
        return result

    _written_so(how)


def _alone() -> None:
    """No bug for those who write, but nothing that this harness is there for ever comes up."""
    GroupCommit.run = lambda self, work: self._transact(work)  # type: ignore[method-assign]


GROUP_PLANTS: dict[str, Callable[[], None]] = {
    "failed commit told as done": _failure_told_as_success,
    "follower dropped": _one_dropped,
    "follower told before the commit": _told_early,
    "follower written twice": _written_twice,
    "no shared transactions": _alone,
}
"""By name; see `planted`."""
