"""Large payloads beside the store: a store around a store that keeps what is large as blobs, and references to them.

A blob is durable before the record that names it, and it is removed after the run that names it. So a crash in between
leaves a blob that nobody needs, never a record whose blob is missing. `collect` removes those.

A blob's name says where its record was to stand: run, incarnation and seq, and a random part, since a run id may be
used again after a delete. Blobs are not shared between records, though that would save room: whoever removes a shared
one can't know who is about to name it. With the place in its name a blob is garbage as soon as another record stands
there, or as the incarnation is over, since no append can land there any more: that needs no clock. Only what was put
for a run that isn't there, and may be about to be, is told by its age.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any, cast

import msgspec

from stepwell.errors import (
    CorruptHistoryError,
    InvalidInputError,
    RunArrivingError,
    RunMovedError,
    StoreError,
    StoreMisconfiguredError,
)
from stepwell.store import Arrival, Departure, Draft, Durability, Head, Movable, RunHead, Store, StoreSize

from ..file_names import decode, encode
from ..rules import Clock, system_clock
from .blobs import TEMPORARY, Blob, BlobStore, open_blobs
from .encrypted import EncryptedStore
from .lines import body_of, corrupt, joined, matched, place, remade, split
from .moves import WrappedMoves
from .wrapper import Wrapper, find

__all__ = ["Collected", "OffloadingStore"]

THRESHOLD = 64 << 10
GRACE = 24 * 3600.0
"""Seconds for which any blob is kept: its record may be under way."""

_OWN = re.compile(rb'(?:\A|,)"blob":"([a-z0-9_=./-]{1,900})","bytes":([0-9]{1,15}),"sha256":"([0-9a-f]{64})"(?=,|\Z)')
_PLACE = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.[0-9a-f]+")
_HEX = 120
_PAGE = 500  # records whose blobs are looked for at once


class Collected(msgspec.Struct, frozen=True):
    """What `collect` found.

    Attributes:
        removed: blobs that no record can name any more, and that were removed.
        bytes: how large they were.
        kept: blobs that are needed, or that may be about to be.
        unknown: files or objects that no OffloadingStore has made; they stay.
    """

    removed: int = 0
    bytes: int = 0
    kept: int = 0
    unknown: int = 0


class OffloadingStore(Wrapper):
    """Keeps what is large in a record as a blob, and in the record its name, size and SHA-256.

    Args:
        store: any store, but none that encrypts: the blobs would lie there as they are. Encrypt around this one.
        blobs: where large payloads are kept, or its address: a path, or a URL such as `s3://bucket/prefix`.
        threshold: bytes of a record's body from which on it is taken out.
        clock: gives microseconds since 1970, for `collect`; None is this machine's clock.

    Raises:
        StoreMisconfiguredError: the store encrypts or takes blobs out already, or the address is none.
        InvalidInputError: `threshold` is none.

    Example:
        >>> from stepwell_stores.wrapping import MemoryBlobs
        >>> from stepwell_stores.memory import MemoryStore
        >>> from stepwell_stores.wrapping import OffloadingStore
        >>> OffloadingStore(MemoryStore(), MemoryBlobs()).collect()
        Collected(removed=0, bytes=0, kept=0, unknown=0)
    """

    MARK = "+blob"

    def __init__(
        self, store: Store, blobs: BlobStore | str, *, threshold: int = THRESHOLD, clock: Clock | None = None
    ) -> None:
        if isinstance(threshold, bool) or not isinstance(threshold, int) or threshold < 1:
            raise InvalidInputError(f"threshold must be a number of bytes, 1 or more, got {threshold!r}")
        if find(store, OffloadingStore) is not None:
            raise StoreMisconfiguredError("large payloads are taken out of the store already; wrap it once")
        if find(store, EncryptedStore) is not None:
            raise StoreMisconfiguredError(
                "the blobs would not be encrypted: write EncryptedStore(OffloadingStore(store, blobs), keys), or "
                "encrypted+offloaded+URL"
            )
        super().__init__(store)
        if callable(getattr(store, "rewrite", None)):
            self.rewrite = self._rewrite
        self.blobs = open_blobs(blobs) if isinstance(blobs, str) else blobs
        self.threshold = threshold
        self._clock = clock or system_clock

    @property
    def durability(self) -> Durability:
        """What the inner store's settings survive."""
        found = self.inner.durability
        return msgspec.structs.replace(found, settings={**found.settings, "blobs": repr(self.blobs)})

    # ---- records

    def _wrap(self, run_id: str, incarnation: int, seq: int, draft: Draft) -> Draft:
        if len(draft.body) < self.threshold:
            return draft
        begin, rest, copies = split(draft)
        name = f"{folder_of(run_id)}/{incarnation}.{seq}.{secrets.token_hex(8)}"
        self.blobs.put(name, rest)
        digest = hashlib.sha256(rest).hexdigest()
        own = f'"blob":"{name}","bytes":{len(rest)},"sha256":"{digest}"'
        return Draft(draft.type + self.MARK, joined(begin, own.encode(), copies))

    def _unwrap(self, run_id: str, incarnation: int, seq: int, kind: bytes, body: bytes) -> bytes:  # noqa: ARG002 - of others
        own = _OWN.search(body)
        if own is None:
            corrupt(run_id, incarnation, seq, "it is marked as taken out, and names no blob")
        name = own[1].decode()
        rest = self.blobs.get(name)
        if rest is None:
            where = place(run_id, incarnation, seq)
            raise CorruptHistoryError(
                f"{where}: its payload, blob {name}, is not in {self.blobs!r}; restore it from a backup, or name the "
                "blobs of this store",
                place=where,
                seq=seq,
            )
        if len(rest) != int(own[2]) or hashlib.sha256(rest).hexdigest() != own[3].decode():
            corrupt(run_id, incarnation, seq, f"its payload, blob {name} in {self.blobs!r}, is not what was written")
        return body[: own.start()] + rest

    # ---- what is large, removed and counted

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        """Remove a closed run, and then its blobs; see the port."""
        return self.removing(
            run_id, partial(self._lines, run_id), lambda: self.inner.delete(run_id, incarnation, fence=fence)
        )

    def removing(self, run_id: str, lines: Callable[[int, int], list[bytes]], remove: Callable[[], bool]) -> bool:
        """Remove the records that `lines` gives by incarnation and seq, and then the blobs that they name.

        Not all of the run's: others may be under way with records of a run that takes the id next.
        """
        names = list[str]()
        if next(iter(self.blobs.list(folder_of(run_id))), None) is not None:
            number = seq = 0
            while found := lines(number, seq):
                names += [name for line in found if (name := _named(line)) is not None]
                number, seq = (number, seq + _PAGE) if len(found) == _PAGE else (number + 1, 0)
        gone = remove()
        if gone and names:
            with contextlib.suppress(StoreError):  # the run is gone; `collect` finds what is left
                self.blobs.delete(names)
        return gone

    def _lines(self, run_id: str, number: int, seq: int) -> list[bytes]:
        """A page of a run's records as they are in the store inside; none when the run is not there."""
        try:
            tail = self.inner.read(run_id, seq, incarnation=number, limit=_PAGE)
        except (RunMovedError, RunArrivingError):
            return []
        return [] if tail is None or tail.from_seq != seq else tail.records

    def size(self) -> StoreSize:
        """How large it is, blobs included; see the port."""
        found = self.inner.size()
        return msgspec.structs.replace(found, bytes=found.bytes + sum(blob.size for blob in self.blobs.list()))

    def vacuum(self) -> int:
        """Give space back, that of blobs that nobody needs as well; see the port."""
        return self.collect().bytes + self.inner.vacuum()

    def collect(self, *, grace: float = GRACE, progress: Callable[[float], None] | None = None) -> Collected:
        """Remove blobs that no record names: crashes between two steps of a write or a delete have left them.

        It may run at any time and be ended at any time.

        Args:
            grace: seconds for which any blob is kept, since its record may be under way.
            progress: told how much is done, 0 to 1.

        Raises:
            StoreError, CorruptHistoryError: a blob stays when it can't be told whether it is needed.
        """
        before = self._clock() - int(grace * 1_000_000)
        blobs = sorted(self.blobs.list(), key=lambda blob: blob.name)  # first: what is put from now on is not looked at
        garbage: list[Blob] = []
        kept = unknown = removed = size = looked = 0
        for folder, group in groupby(blobs, key=lambda blob: blob.name.rpartition("/")[0]):
            found = list(group)
            run_id, head, arriving = run_of(folder), None, False
            if run_id is not None:
                try:
                    head = self.inner.head(run_id)
                except RunArrivingError:
                    arriving = True
                except RunMovedError:
                    pass  # as one that was deleted
            for blob in found:
                if run_id is None or not _is_ours(blob):
                    unknown += 1
                elif self._is_garbage(run_id, head, arriving, blob, before):
                    garbage.append(blob)
                else:
                    kept += 1
            looked += len(found)
            if garbage:
                self.blobs.delete([blob.name for blob in garbage])
                removed, size = removed + len(garbage), size + sum(blob.size for blob in garbage)
                garbage.clear()
            if progress is not None:
                progress(looked / len(blobs))
        return Collected(removed, size, kept, unknown)

    def _is_garbage(self, run_id: str, head: RunHead | None, arriving: bool, blob: Blob, before: int) -> bool:
        """Whether no record names a blob, nor ever will."""
        if blob.put >= before:
            return False  # the record that names it may be under way, also one that is rewritten in its place
        found = _PLACE.fullmatch(blob.name.rpartition("/")[2])
        if found is None or (head is None and not arriving):  # never finished, or of a run that isn't there
            return True
        incarnation, seq = int(found[1]), int(found[2])
        if head is None:
            lines = cast("Any", self.inner).staged(run_id, incarnation, seq, limit=1)
            return bool(lines) and _named(lines[0]) != blob.name  # none: it is not staged yet, or has landed by now
        current = incarnation == head.incarnation
        if incarnation > head.incarnation or (current and seq >= head.seq and not head.closed):
            return False  # nothing stands in its place yet
        tail = self.inner.read(run_id, seq, incarnation=incarnation, limit=1)
        if tail is None:
            return False  # the run has just been removed; next time
        return not tail.records or tail.from_seq != seq or _named(tail.records[0]) != blob.name

    # ---- runs that come and go

    def _moves(self, inner: Movable) -> WrappedMoves:
        return MovesWithBlobs(self, inner)

    # ---- rewriting

    def _rewrite(
        self,
        run_id: str,
        incarnation: int,
        from_seq: int,
        old: Sequence[bytes],
        new: Sequence[bytes],
        *,
        head: tuple[Head, Head] | None = None,
    ) -> bool:
        """Put other records in place of these, with blobs of their own; see `Rewritable`."""
        tail = self.inner.read(run_id, from_seq, incarnation=incarnation, limit=len(old)) if old else None
        if old and (tail is None or tail.from_seq != from_seq or self._all_out(run_id, tail) != list(old)):
            return False
        inside, outside = [] if tail is None else tail.records, list[bytes]()
        for seq, line in enumerate(new, from_seq):
            found = matched(line)
            assert found is not None, "a record that is rewritten has a body"
            draft = self._wrap(run_id, incarnation, seq, Draft(found[1].decode(), body_of(found)))
            outside.append(remade(found, draft.type.encode(), draft.body))
        done: bool = cast("Any", self.inner).rewrite(run_id, incarnation, from_seq, inside, outside, head=head)
        unneeded = [name for line in (inside if done else outside) if (name := _named(line)) is not None]
        if unneeded:
            with contextlib.suppress(StoreError):  # `collect` finds them
                self.blobs.delete(unneeded)
        return done


class MovesWithBlobs(WrappedMoves):
    """Arrivals and departures, with which blobs go."""

    def __init__(self, store: OffloadingStore, inner: Movable) -> None:
        super().__init__(store, store.MARK, inner)
        self._store = store

    def turn_away(self, arrival: Arrival) -> bool:
        """Forget a run that is to come, and remove its blobs; see the port."""
        run_id = arrival.run.run_id
        return self._store.removing(
            run_id,
            lambda number, seq: self._inner.staged(run_id, number, seq, limit=_PAGE),
            lambda: self._inner.turn_away(arrival),
        )

    def depart(self, seen: RunHead, departure: Departure) -> bool:
        """Remove a run that goes on elsewhere, and its blobs; see the port."""
        store, run_id = self._store, seen.run_id
        return store.removing(run_id, partial(store._lines, run_id), lambda: self._inner.depart(seen, departure))


def folder_of(run_id: str) -> str:
    """The folder of a run's blobs, from which the run id can be told, on file systems without upper case too."""
    name = encode(run_id)
    if "~" not in name:
        return f"run/{name.replace('%', '=')}"
    text = run_id.encode().hex()
    return "/".join(["hex", *(text[i : i + _HEX] for i in range(0, len(text), _HEX))])


def run_of(folder: str) -> str | None:
    """The run id of a folder; None when it is none of ours."""
    kind, _, rest = folder.partition("/")
    try:
        if kind == "run":
            return decode(rest.replace("=", "%"))
        return bytes.fromhex(rest.replace("/", "")).decode() if kind == "hex" else None
    except ValueError:
        return None


def _is_ours(blob: Blob) -> bool:
    last = blob.name.rpartition("/")[2]
    return last.startswith(TEMPORARY) or _PLACE.fullmatch(last) is not None


def _named(line: bytes) -> str | None:
    """The blob that a record names."""
    found = matched(line)
    own = None if found is None or not found[1].endswith(b"+blob") else _OWN.search(body_of(found))
    return None if own is None else own[1].decode()
