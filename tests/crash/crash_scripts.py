"""What is done to a store before it crashes: scripts of calls.

A script is a list of words, such as `create+lease own2 close`; each does what fits the run as it stands:

create, +lease, +closed     create the run                     claim, renew, release   leases
own0 ... own3, +release     append as its owner                stale    append with the fence of an old lease
out1 ... out3, +lease, @    append from outside (@: at a seq)  look, list              read it; read all heads
close                       append and close                   again    repeat the last write
open, +lease                open the next incarnation          other    go on in the other process
next, +lease                the same, as the owner of the one that is open
delete                      delete it                          die      this process ends, a new one takes its place
long                        go on with another run, whose file names are hashes; `long` again: back
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from attrs import define, evolve, field
from tests.crash.crash_ledger import EPOCH, TTL, Attempt
from tests.crash.crash_world import Process, World

from stepwell.store import AlreadyCommitted, Committed, Created, Fenced, Lease, NotApplied, Tail, Unknown

__all__ = ["SCRIPTS", "perform", "random_words"]

LONG = "é" * 31  # more than 180 characters in a file name

SCRIPTS = (
    "create+lease own2 own1 close",
    "create out1 out2+lease own1 release claim own3 close",
    "create+closed delete create+lease own1 close delete create",
    "create+lease close open+lease own2 close open out1 claim close delete",
    "long create+lease own1 out1 close delete create+lease own1",
    "create claim renew release claim own1+release claim own0 close",
    "create+lease look other look out1 other own1 other look out1+lease",
    "create+lease close open+lease own1 close open close delete die create+lease own1 out1 close delete create own1",
    "create+lease own3 out@ again stale claim own1 again close again",
    "create+lease own1 die look die claim own2 close die list",
    "create+lease own1 next+lease own1 out1 next claim own2 next+lease close open+lease next+lease die claim close",
    "create+lease next+lease other look out1 other again stale look claim own1 next other look out1+lease delete",
    "create+lease own1 long create+lease own2 long own3 list close long close",
)

WORD = re.compile(r"([a-z]+)([0-3]?)(@|\+lease|\+closed|\+release)?")


@define
class Mind:
    """What the author of a script knows of a run; None: he has to look."""

    tail: Tail | None = None
    known: bool = True
    lease: Lease | None = None
    fences: list[int] = field(factory=list)
    last: Attempt | None = None

    @property
    def closed(self) -> bool:
        return self.tail is not None and self.tail.closed


class Author:
    """Does what the words of a script say."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.processes = [world.process(), world.process()]
        self.turn = 0
        self.minds: dict[str, Mind] = {}
        self.run_id = "r"
        self.words: list[str] = []

    @property
    def mind(self) -> Mind:
        return self.minds.setdefault(self.run_id, Mind())

    @property
    def process(self) -> Process:
        if not self.processes[self.turn].alive:
            self.processes[self.turn] = self.world.process()
        return self.processes[self.turn]

    def act(self, word: str) -> None:
        """Do one word; a run whose state is not known is looked at first."""
        mind = self.mind
        if not mind.known and not self.look():
            return
        self.words.append(word)
        self.world.log.append((f"-- {word}", ""))
        match = WORD.fullmatch(word)
        assert match is not None, word
        what, count, more = match[1], int(match[2] or 1), match[3] or ""
        if what in ("own", "stale", "close", "out", "open", "next", "create", "delete"):
            self.write(what, count, more)
        else:
            getattr(self, what)()

    def look(self) -> bool:
        tail = self.world.look(self.process, self.run_id)
        if isinstance(tail, Unknown):
            return False
        self.mind.tail, self.mind.known = tail, True
        if tail is None or tail.closed:
            self.mind.lease = None
        return True

    def list(self) -> None:
        self.world.list(self.process)
        self.world.call(self.process, "next due", lambda store: store.next_due())
        self.world.call(self.process, "wait", lambda store: store.wait(self.run_id, 99, 0))

    def claim(self) -> None:
        lease = self.world.claim(self.process, self.run_id)
        if isinstance(lease, Lease):
            self.keep(lease)
        self.mind.known = not isinstance(lease, Unknown)

    def keep(self, lease: Lease) -> None:
        mind = self.mind
        mind.lease = lease
        mind.fences.append(lease.fence)

    def renew(self) -> None:
        lease = self.mind.lease
        if lease is not None:
            self.world.call(self.process, "renew", lambda store: store.renew(lease, TTL))

    def release(self) -> None:
        lease, self.mind.lease = self.mind.lease, None
        if lease is not None:
            self.world.call(self.process, "release", lambda store: store.release(lease))

    def other(self) -> None:
        self.turn = 1 - self.turn

    def die(self) -> None:
        process = self.process
        self.world.computer.kill(process.pid)
        process.alive = False

    def long(self) -> None:
        self.run_id = "r" if self.run_id == LONG else LONG

    def again(self) -> None:
        if self.mind.last is not None:
            self.send(self.mind.last)

    def write(self, what: str, count: int, more: str) -> None:
        """Make a write that fits what is known of the run, if any does."""
        mind = self.mind
        tail, lease = mind.tail, mind.lease
        sizes = tuple(self.rng.choice((0, 9, 60, 300)) for _ in range(count))
        new = Attempt(number=self.world.next(), kind="own", run_id=self.run_id, sizes=sizes)
        new = evolve(new, due=self.rng.choice((None, EPOCH + 5, EPOCH + 10**12)), leased=more == "+lease")
        if what == "create":
            self.send(evolve(new, kind="create", then="closed" if more == "+closed" else "open"))
        elif tail is None:
            return
        elif what == "open":
            self.send(evolve(new, kind="open", incarnation=tail.incarnation + 1))
        elif what == "next":
            if lease is not None:
                self.send(evolve(new, kind="open", incarnation=tail.incarnation + 1, seq=tail.seq, fence=lease.fence))
                mind.lease = None if more != "+lease" else mind.lease
        elif what == "delete":
            self.send(evolve(new, kind="delete", incarnation=tail.incarnation, sizes=()))
        elif what == "out":
            at = (tail.incarnation, tail.seq) if more == "@" else (None, None)
            self.send(evolve(new, kind="outside", incarnation=at[0], seq=at[1]))
        elif what == "stale" and len(mind.fences) > 1:
            self.send(evolve(new, incarnation=tail.incarnation, seq=tail.seq, fence=mind.fences[-2]))
        elif lease is not None:
            new = evolve(new, incarnation=tail.incarnation, seq=tail.seq, fence=lease.fence)
            self.send(evolve(new, release=more == "+release", then="closed" if what == "close" else "open"))

    def send(self, attempt: Attempt) -> None:
        """Try it; what cannot be told is, as often as not, tried again at once."""
        mind = self.mind
        mind.last = attempt if attempt.kind != "delete" else None
        outcome = self.world.attempt(self.process, attempt)
        for _ in range(3):
            if not isinstance(outcome, (Unknown, NotApplied)) or self.rng.random() < 0.5:
                break
            outcome = self.world.attempt(self.process, attempt)
        mind.known = False
        if isinstance(outcome, (Created, Committed, AlreadyCommitted)) and outcome.lease is not None:
            self.keep(outcome.lease)
        if attempt.release or attempt.then == "closed" or isinstance(outcome, Fenced):
            mind.lease = None


def perform(world: World, words: Iterator[str] | Callable[[Author], Iterator[str]], rng: random.Random) -> list[str]:
    """Run a script; gives the words that were done."""
    author = Author(world, rng)
    for word in words(author) if callable(words) else words:
        author.act(word)
    return author.words


def random_words(author: Author) -> Iterator[str]:
    """Words that fit, at random."""
    rng = author.rng
    for _ in range(rng.randint(4, 11)):
        mind = author.mind
        if mind.tail is None:
            choice = "create create+lease create+lease create+lease create+closed"
        elif mind.closed:
            choice = "open open+lease open+lease delete delete out1 again look"
        elif mind.lease is None:
            choice = "claim claim claim out1 out2+lease out1+lease out@ again list stale"
        else:
            choice = "own1 own2 own3 own1 own2 own1+release own0 out1 out2 next next+lease close close"
            choice += " release renew again stale look"
        yield rng.choice(f"{choice} other die long".split() if rng.random() < 0.2 else choice.split())
