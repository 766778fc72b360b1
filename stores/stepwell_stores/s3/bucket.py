"""A bucket, as the store asks it: objects that are created once, read, listed; and what the driver's errors mean.

Tries are made here and not by the driver, so that each knows whether one before it may have been done after all.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NoReturn, TypeVar

import msgspec

from stepwell.errors import ClosedError, StoreError, StoreMisconfiguredError, StoreUnavailableError

from ..liveness import ForkAware, watch_forks
from ..outcomes import AmbiguousError, NotWrittenError
from .pool import Pool

__all__ = ["Bucket", "Found", "Listed"]

T = TypeVar("T")
R = TypeVar("R")

_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # seconds between tries, about
_AT_ONCE = 16
_STATUS = re.compile(r"status code: ([0-9]{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,200})</Message>")


class Found(msgspec.Struct, frozen=True):
    """An object as it was read."""

    data: bytes
    e_tag: str | None


class Listed(msgspec.Struct, frozen=True):
    """An object as a list names it; `written` in microseconds since 1970, by the bucket's clock."""

    key: str
    size: int
    written: int


class Bucket(ForkAware):
    """The objects below a prefix.

    Args:
        objects: what the driver has: a store of obstore's, which may have a prefix of its own.
        place: names it in messages.
        prefix: of every key; "" or ending in a slash.
        borrowed: it is the user's.
    """

    def __init__(self, objects: Any, place: str, prefix: str, *, borrowed: bool = False) -> None:
        self.objects, self.place, self._prefix, self._borrowed = objects, place, prefix, borrowed
        self._born = os.getpid()
        self._pool = Pool(_AT_ONCE)
        self._closed = False
        watch_forks(self)

    # ---- one object

    def create(self, key: str, data: bytes) -> tuple[Literal["made", "found", "taken"], bytes]:
        """Make an object where there is none; "found" when it is there already with these very bytes.

        The same bytes are sent until the bucket says what became of them. So when an answer was lost, the next try
        meets the object of the one before, and when "taken" is said, no earlier try can be done any more.

        Returns:
            How it ended, and the bytes that are there.

        Raises:
            NotWrittenError, AmbiguousError: it was tried in vain; the second when one of the tries may have been done,
                or may be done later.
            StoreMisconfiguredError: the bucket is not there, not ours, or can't do it.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        doubt = False
        last: Exception | None = None
        for pause in (*_PAUSES, None):
            try:
                self._put(key, data, "create")
            except (AlreadyExistsError, PreconditionError) as e:
                last = e
                try:
                    there = self.get(key)
                except StoreUnavailableError as unread:
                    raise self._unavailable(f"write {key}", unread, doubt=True) from unread
                if there is not None:
                    return ("found" if there.data == data else "taken"), there.data
                # nothing there: the bucket had two at once (409), and asks to try again
            except Exception as e:  # noqa: BLE001 - judged below
                last = e
                doubt |= self._judge(e, f"write {key}", doubt=doubt)
            else:
                return "made", data
            self._rest(pause)
        raise self._unavailable(f"write {key}", last, doubt=doubt) from last

    def replace(self, key: str, data: bytes, e_tag: str | None) -> bool:
        """Write an object if it is still the one with this tag, or if there is none (None).

        `data` must hold something that no other version has: a tag tells contents, not versions.

        Raises:
            StoreUnavailableError, StoreMisconfiguredError: as `get`.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        if e_tag is None:
            return self.create(key, data)[0] != "taken"
        last: BaseException | None = None
        for pause in (*_PAUSES, None):
            try:
                self._put(key, data, {"e_tag": e_tag})
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                there = self.get(key)  # it may be ours, of a try whose answer was lost; or both lost (409)
                if there is None or there.e_tag != e_tag:
                    return there is not None and there.data == data
            except Exception as e:  # noqa: BLE001 - judged below
                last = e
                self._judge(e, f"write {key}")
            else:
                return True
            self._rest(pause)
        raise self._unavailable(f"write {key}", last) from last

    def put(self, key: str, data: bytes) -> None:
        """Write an object, whatever is there.

        Raises:
            StoreUnavailableError, StoreMisconfiguredError: as `get`.
        """
        self._tried(f"write {key}", lambda: self._put(key, data, "overwrite"))

    def get(self, key: str) -> Found | None:
        """Read an object; None when there is none.

        Raises:
            StoreUnavailableError: the bucket can't be reached, or asks for patience.
            StoreMisconfiguredError: it is not there, or not ours to read.
        """
        import obstore

        def read() -> Found | None:
            try:
                answer = obstore.get(self.objects, self._prefix + key)
            except FileNotFoundError as e:
                if "NoSuchBucket" in str(e):
                    raise
                return None
            return Found(bytes(answer.bytes()), answer.meta["e_tag"])

        return self._tried(f"read {key}", read)

    def written(self, key: str) -> int | None:
        """When an object was written last, by the bucket's clock, in microseconds since 1970; None: there is none."""
        import obstore

        def look() -> int | None:
            try:
                return _micros(obstore.head(self.objects, self._prefix + key))
            except FileNotFoundError as e:
                if "NoSuchBucket" in str(e):
                    raise
                return None

        return self._tried(f"read {key}", look)

    # ---- many

    def listed(self, folder: str, after: str | None = None, page: int = 1000) -> Iterator[Listed]:
        """Objects below a folder, by their keys; those after a key only. Read page by page, as they are asked for."""
        import obstore

        done = after
        while True:
            place, offset = self._prefix + folder, None if done is None else self._prefix + done

            def look(place: str = place, offset: str | None = offset) -> Sequence[Any]:
                pages = obstore.list(self.objects, place, offset=offset, chunk_size=page)
                return next(iter(pages), ())

            found = sorted(self._tried(f"list {folder}", look), key=lambda meta: str(meta["path"]))
            for meta in found:
                done = meta["path"][len(self._prefix) :]
                yield Listed(done, meta["size"], _micros(meta))
            if len(found) < page:
                return

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects, those that are not there any more too."""
        import obstore

        for start in range(0, len(keys), 1000):
            some = [self._prefix + key for key in keys[start : start + 1000]]
            with contextlib.suppress(FileNotFoundError):
                self._tried("remove objects", lambda some=some: obstore.delete(self.objects, some))  # type: ignore[misc]

    def each(self, call: Callable[[T], R], things: Iterable[T]) -> list[R]:
        """Call for each thing, several at once; what they give, in order."""
        things = list(things)
        self.check_open()
        return [call(thing) for thing in things] if len(things) < 2 else self._pool.each(call, things)

    def later(self, call: Callable[[], object]) -> None:
        """Have something done that nobody waits for, and that does no harm when it isn't."""
        if not self._closed:
            self._pool.run(call)

    # ---- its life

    def check_open(self) -> None:
        """Raise ClosedError when it is closed."""
        if self._closed:
            raise ClosedError("the store is closed")

    def close(self) -> None:
        """End its threads, once they have done what they are at."""
        if not self._closed:
            self._pool.close()
            self._closed = True

    def after_fork_in_child(self) -> None:
        """Those threads are the parent's."""
        self._pool = Pool(_AT_ONCE)

    def _check_process(self) -> None:
        """Refuse what would hang: the driver's threads don't come along into a forked child."""
        pid = os.getpid()
        began = self._born if self._borrowed else _used.setdefault("pid", pid)
        if began != pid:
            raise StoreMisconfiguredError(
                f"{self.place}: obstore was used in process {began} before this one, {pid}, was forked from it, and "
                "its threads don't live on here; fork before the store is used first, or start processes with 'spawn'"
            )

    # ---- tries

    def _put(self, key: str, data: bytes, mode: Any) -> None:
        import obstore

        self.check_open()
        self._check_process()
        obstore.put(self.objects, self._prefix + key, data, mode=mode, use_multipart=False)

    def _tried(self, what: str, call: Callable[[], T]) -> T:
        """Call until it is done; for what can be done twice."""
        last: BaseException | None = None
        for pause in (*_PAUSES, None):
            self.check_open()
            self._check_process()
            try:
                return call()
            except Exception as e:  # noqa: BLE001 - judged below
                last = e
                self._judge(e, what)
            self._rest(pause)
        raise self._unavailable(what, last) from last

    def _judge(self, error: Exception, what: str, *, doubt: bool = False) -> bool:
        """Whether a write that failed so may have been done; raises what can't be helped by trying again."""
        if isinstance(error, StoreError | ClosedError):
            raise error
        from obstore import exceptions as driver

        text = str(error)
        if not isinstance(error, (driver.BaseError, OSError)):
            raise error  # a bug is no trouble of the bucket's
        match, code = _STATUS.search(text), _CODE.search(text)
        status = int(match[1]) if match else 0
        if isinstance(error, driver.NotSupportedError) or status == 501:
            self._misconfigured(error, what, "it can't do what the store needs; take a bucket with conditional writes")
        if isinstance(error, FileNotFoundError) or status == 404:
            self._misconfigured(error, what, "there is no such bucket; create it, or mend the URL")
        if isinstance(error, driver.PermissionDeniedError | driver.UnauthenticatedError) or status in (401, 403):
            remedy = "check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and what they allow"
            if doubt:
                raise AmbiguousError(f"{self._text(what, error)}; {remedy}") from error
            self._misconfigured(error, what, remedy)
        if "redirect without LOCATION" in text or status in (301, 307):
            self._misconfigured(error, what, "the bucket is in another region; set AWS_REGION")
        if 400 <= status < 500 and status not in (408, 409, 429):
            self._misconfigured(error, what, "the bucket does not take the request; check endpoint and region")
        said_no = status == 429 or (code is not None and code[1] == "SlowDown")
        return not (said_no or "kind: Connect" in text)

    def _misconfigured(self, error: Exception, what: str, remedy: str) -> NoReturn:
        raise StoreMisconfiguredError(f"{self._text(what, error)}; {remedy}") from error

    def _unavailable(self, what: str, error: BaseException | None, *, doubt: bool = False) -> StoreUnavailableError:
        away = "kind: Connect" in str(error)
        remedy = "check that it runs, endpoint and region" if away else "try again"
        return (AmbiguousError if doubt else NotWrittenError)(f"{self._text(what, error)}; {remedy}")

    def _text(self, what: str, error: BaseException | None) -> str:
        """What went wrong, in a line; of the driver's text only what the bucket itself said."""
        text = str(error)
        code, message, status = _CODE.search(text), _MESSAGE.search(text), _STATUS.search(text)
        if code:
            said = code[1] + (f": {message[1]}" if message else "")
        elif status:
            said = f"the answer was {status[1]}"
        elif "kind: Connect" in text:
            said = "no connection"
        elif "kind: Timeout" in text:
            said = "no answer in time"
        elif error is None:
            said = "others are writing"
        else:
            said = text.partition("\n")[0][:200]
        return f"{self.place}: can't {what}: {said}"

    @staticmethod
    def _rest(pause: float | None) -> None:
        if pause is not None:
            time.sleep(pause * (0.5 + random.random()))  # noqa: S311 - so that those who met don't meet again


def _micros(meta: Any) -> int:
    return int(meta["last_modified"].timestamp() * 1_000_000)


_used: dict[str, int] = {}
"""The process in which the driver was used first: its threads are there."""
