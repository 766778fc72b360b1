"""Encryption at rest: a store around a store that sees no payload.

Each record is encrypted by AES-256-GCM under a key of its run, which is derived from the current key of the ring by
HMAC-SHA-256, with a random nonce of 96 bits. What authenticates the record with it: run id, incarnation, seq, type, key
and all that stays readable. So no record can be changed, moved to another place, or taken to another run.

A counter can't be the nonce: a session that was killed leaves nothing by which the next one knows what it had encrypted
and not written, under the same fence and seq. Random nonces of one key meet by chance; since each run has a key of its
own, 2^32 records of one run have a chance of 2^-32 that any two do.
"""

from __future__ import annotations

import heapq
import hmac
import os
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
from msgspec.structs import replace

from stepwell.errors import StoreMisconfiguredError
from stepwell.store import SEALED, Blocked, Draft, Durability, Head, HeadFilter, RunHead, Store

from .compressed import CompressedStore
from .keys import Key, KeyRing
from .lines import at_last, corrupt, joined, place, split
from .wrapper import Wrapper, find

if TYPE_CHECKING:
    from .rekeying import Rekeyed

__all__ = ["EncryptedStore", "KeyRing"]

_read_tags = msgspec.json.Decoder(dict[str, str]).decode

_NONCE = 12
_LEAST = _NONCE + 16
_OPENS, _BOX = b'"enc":"', b',"box":"'
_RUNS = 1024  # runs whose keys are kept
_HIDDEN = 22  # characters of a hidden tag's name or value: 128 bits

_MOVING = (
    "wrap it with EncryptedStore(..., allow_plain=True), or give ?plain=allow in the URL, for the time of moving: "
    "`stepwell rekey` encrypts what is there"
)


class EncryptedStore(Wrapper):
    """Keeps the payloads of histories encrypted in any other store.

    What stays readable, since stores filter and sort by it: run ids, workflows, versions, statuses, instants, signals'
    names, tags (unless hidden), the types, number and sizes of records, attempt ids. Inputs, results, errors, signals'
    payloads, names of steps, states, reasons and the text of why a run is blocked do not. Whoever can write the store
    can still take records from a history's end, put an older copy of a whole run in its place, or remove it.

    Args:
        store: any store, but none that compresses: what is encrypted has no repetitions left, so compress around it.
        keys: a ring, a mapping of keys by id, or a function that gives one: see `KeyRing`.
        allow_plain: also read what is not encrypted, for the time of moving. Else it is refused, since whoever can
            write the store could put it there.
        hide_tags: keep tags' names and values as HMACs. They are found by their whole value still, one query for each
            key of the ring.

    Raises:
        StoreMisconfiguredError: `cryptography` is not installed, or the store is none that can be encrypted.
        InvalidInputError: the keys are none.

    Example:
        >>> from stepwell_stores.wrapping import EncryptedStore
        >>> from stepwell_stores.memory import MemoryStore
        >>> EncryptedStore(MemoryStore(), {"k1": bytes(32)}).durability.settings["encryption"]
        "AES-256-GCM, current key 'k1' of k1"
    """

    MARK = "+enc"

    def __init__(
        self,
        store: Store,
        keys: KeyRing | Mapping[str, bytes] | Callable[[], Mapping[str, bytes]],
        *,
        allow_plain: bool = False,
        hide_tags: bool = False,
    ) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as e:
            raise StoreMisconfiguredError(
                "an encrypted store needs the package cryptography: pip install 'stepwell[crypto]'"
            ) from e
        if find(store, EncryptedStore) is not None:
            raise StoreMisconfiguredError("the store is encrypted already; wrap it once")
        if find(store, CompressedStore) is not None:
            raise StoreMisconfiguredError(
                "what is encrypted can't be compressed: write CompressedStore(EncryptedStore(store, keys)), or "
                "compressed+encrypted+URL"
            )
        super().__init__(store)
        self.keys = keys if isinstance(keys, KeyRing) else KeyRing(keys)
        self.allow_plain = allow_plain
        self.hide_tags = hide_tags
        self._wrong_tag: type[Exception] = InvalidTag
        self._make_cipher = AESGCM
        self._cipher: Callable[[Key, str], Any] = lru_cache(_RUNS)(self._cipher_of)

    def _cipher_of(self, key: Key, run_id: str) -> Any:
        return self._make_cipher(key.derived("run", run_id))

    @property
    def durability(self) -> Durability:
        """What the inner store's settings survive."""
        found = self.inner.durability
        text = f"AES-256-GCM, current key {self.keys.current.id!r} of {', '.join(self.keys.keys)}"
        return replace(found, settings={**found.settings, "encryption": text})

    def rekey(self) -> Iterator[Rekeyed]:
        """Rewrite, in the inner store, what is not under the current key; gives how far it is, run by run.

        With `allow_plain` what is not encrypted is encrypted. Others may go on meanwhile, with the same current key.
        Killed anywhere, it goes on when it is called again. At last everything is read with the current key alone.

        Raises:
            StoreMisconfiguredError: the inner store can't rewrite records, a key is missing, or others go on to write
                with another key.
            CorruptHistoryError: a record is damaged.
        """
        from .rekeying import rekey  # who rotates keys does so once a year

        proof = EncryptedStore(self.inner, self.keys.only_current(), hide_tags=self.hide_tags)
        return rekey(self, proof, self.keys.current, hide_tags=self.hide_tags)

    # ---- records

    def _wrap(self, run_id: str, incarnation: int, seq: int, draft: Draft) -> Draft:
        begin, rest, copies = split(draft)
        key = self.keys.current
        if self.hide_tags and "tags" in copies:
            copies["tags"] = self._hidden_copy(key, run_id, copies["tags"])
        clear = joined(begin, b'%b%b"' % (_OPENS, key.label.encode()), copies)
        nonce = os.urandom(_NONCE)
        bound = _bound(run_id, incarnation, seq, draft.type.encode(), clear)
        box = b2a_base64(nonce + self._cipher(key, run_id).encrypt(nonce, rest, bound), newline=False)
        return Draft(draft.type + self.MARK, b'%b%b%b"' % (clear, _BOX, box))

    def _unwrap(self, run_id: str, incarnation: int, seq: int, kind: bytes, body: bytes) -> bytes:
        stop, start = at_last(body, _BOX, kind), body.find(_OPENS)
        clear = body[:stop]
        begin = body[: max(start - 1, 0)]  # less the comma
        label = body[start + len(_OPENS) : body.find(b'"', start + len(_OPENS))].decode("utf-8", "replace")
        if stop < 0 or not 0 <= start < stop:
            corrupt(run_id, incarnation, seq, "it is marked as encrypted, and is not")
        key = self._key(label, run_id, incarnation, seq)
        try:
            box = a2b_base64(body[stop + len(_BOX) : -1], strict_mode=True)
            if len(box) < _LEAST:
                raise ValueError("too short")
            bound = _bound(run_id, incarnation, seq, kind, clear)
            rest: bytes = self._cipher(key, run_id).decrypt(box[:_NONCE], box[_NONCE:], bound)
        except (Base64Error, ValueError) as e:
            corrupt(run_id, incarnation, seq, "it is marked as encrypted, and is not", e)
        except self._wrong_tag:
            corrupt(run_id, incarnation, seq, f"key {key.id!r} does not open it: it was changed, or taken elsewhere")
        return begin + rest

    def _untouched(self, run_id: str, incarnation: int, seq: int, line: bytes) -> bytes:
        if self.allow_plain:
            return line
        raise StoreMisconfiguredError(
            f"{place(run_id, incarnation, seq)}: is not encrypted, and so not read; {_MOVING}"
        )

    def _key(self, label: str, run_id: str, incarnation: int, seq: int | str) -> Key:
        name = label.partition(":")[0]
        key = self.keys.find(name)
        if key is None or key.label != label:
            where = place(run_id, incarnation, seq) if isinstance(seq, int) else f"run {run_id!r}, its {seq}"
            _refuse_key(where, name, self.keys, other=key is not None)
        return key

    # ---- heads

    def _head_in(self, run_id: str, head: Head) -> Head:
        if head.waiting and any(one.reason is not None for one in head.waiting):
            waiting = tuple(
                one if one.reason is None else replace(one, reason=self._text_in(run_id, one.wait, one.reason))
                for one in head.waiting
            )
            head = replace(head, waiting=waiting)
        if head.blocked is not None:
            blocked = replace(head.blocked, message=self._text_in(run_id, "blocked", head.blocked.message))
            head = replace(head, blocked=blocked)
        if self.hide_tags and head.tags:
            head = replace(head, tags=self._hidden(self.keys.current, run_id, head.tags))
        return head

    def _head_out(self, run: RunHead) -> RunHead:
        head, run_id = run.head, run.run_id
        if not head.waiting and head.blocked is None and not head.tags:
            return run
        waiting = tuple(
            one if one.reason is None else replace(one, reason=self._text_out(run, "reason", one.wait, one.reason))
            for one in head.waiting
        )
        blocked, tags = head.blocked, head.tags
        if blocked is not None:
            message = self._text_out(run, "reason of being blocked", "blocked", blocked.message)
            blocked = Blocked(blocked.code, message, blocked.fingerprints)
        if SEALED in tags:
            tags = _read_tags(self._text_out(run, "tags", "tags", tags[SEALED]))
        elif self.hide_tags and tags and not self.allow_plain:
            raise StoreMisconfiguredError(f"run {run_id!r}, its tags: are not hidden; {_MOVING}")
        return replace(run, head=replace(head, waiting=waiting, blocked=blocked, tags=tags))

    def _text_in(self, run_id: str, name: str, text: str, key: Key | None = None) -> str:
        """A text of a head, encrypted; `name` says which one."""
        key = key or self.keys.current
        nonce = os.urandom(_NONCE)
        box = nonce + self._cipher(key, run_id).encrypt(
            nonce, text.encode("utf-8", "surrogatepass"), _bound_text(run_id, name)
        )
        return f"{SEALED}{key.label}:{b2a_base64(box, newline=False).decode()}"

    def _text_out(self, run: RunHead, what: str, name: str, text: str) -> str:
        run_id = run.run_id
        if not text.startswith(SEALED):
            if self.allow_plain:
                return text
            raise StoreMisconfiguredError(f"run {run_id!r}, its {what}: is not encrypted, and so not read; {_MOVING}")
        label, _, box = text[len(SEALED) :].rpartition(":")
        key = self._key(label, run_id, run.incarnation, what)
        try:
            raw = a2b_base64(box.encode("ascii"), strict_mode=True)
            opened: bytes = self._cipher(key, run_id).decrypt(raw[:_NONCE], raw[_NONCE:], _bound_text(run_id, name))
            return opened.decode("utf-8", "surrogatepass")
        except (Base64Error, ValueError, self._wrong_tag) as e:
            corrupt(run_id, run.incarnation, run.seq, f"the {what} in its head was changed, or taken elsewhere", e)

    # ---- tags that are hidden

    def _hidden(self, key: Key, run_id: str, tags: Mapping[str, str]) -> dict[str, str]:
        found = dict(_hidden_tag(key, name, value) for name, value in tags.items())
        return {**found, SEALED: self._text_in(run_id, "tags", msgspec.json.encode(tags).decode(), key)}

    def _hidden_copy(self, key: Key, run_id: str, raw: bytes) -> bytes:
        try:
            tags = _read_tags(raw)
        except msgspec.MsgspecError:
            tags = {}
        return msgspec.json.encode(self._hidden(key, run_id, tags) if tags else tags)

    def heads(self, where: HeadFilter, *, limit: int, after: str | None = None) -> list[RunHead]:
        """A page of heads, newest first; see the port. By a hidden tag it is asked for once for each key."""
        if not self.hide_tags or where.tag is None:
            return super().heads(where, limit=limit, after=after)
        name, value = where.tag
        pages: list[list[RunHead]] = []
        for key in self.keys.keys.values():
            hidden, mine = _hidden_tag(key, name, value or "")
            mine_or_any = None if value is None else mine
            pages.append(super().heads(replace(where, tag=(hidden, mine_or_any)), limit=limit, after=after))
        rows = heapq.merge(*pages, key=lambda run: (run.head.created, run.run_id), reverse=True)
        return list({run.run_id: run for run in rows}.values())[:limit]


def _bound(run_id: str, incarnation: int, seq: int, kind: bytes, clear: bytes) -> bytes:
    """What is authenticated with a record: its place, its type, and what stays readable."""
    run = run_id.encode()
    return b"stepwell record %d.%d %b %d:%b%b" % (incarnation, seq, kind, len(run), run, clear)


def _bound_text(run_id: str, name: str) -> bytes:
    run = run_id.encode()
    return b"stepwell head %d:%b%b" % (len(run), run, name.encode())


def _hidden_tag(key: Key, name: str, value: str) -> tuple[str, str]:
    secret = key.derived("tags")
    pair = (f"name\0{name}", f"value\0{name}\0{value}")
    hidden, mine = (
        b2a_base64(hmac.digest(secret, text.encode("utf-8", "surrogatepass"), "sha256"), newline=False).decode()[
            :_HIDDEN
        ]
        for text in pair
    )
    return hidden, mine


def _refuse_key(where: str, name: str, ring: KeyRing, *, other: bool) -> NoReturn:
    if other:
        problem = f"is encrypted with another key {name!r} than the ring's; give the one that it was written with"
    else:
        known = ", ".join(map(repr, ring.keys))
        problem = f"is encrypted with key {name!r}, which is not in the ring (it has {known}); add it"
    raise StoreMisconfiguredError(f"{where}: {problem}")
