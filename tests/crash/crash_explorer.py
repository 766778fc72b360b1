"""One script, the photos of it, and what comes of each of them when it crashes; see `crash_states`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

from attrs import define, field, frozen
from tests.crash.crash_ledger import Ledger, Violation
from tests.crash.crash_recovery import recover
from tests.crash.crash_scripts import SCRIPTS, perform, random_words
from tests.crash.crash_world import World
from tests.crash.simdisk import Disk, File
from tests.crash.simfs import Computer, Fault, Write

__all__ = ["Explorer"]

VARIANTS = 2
WET_VARIANTS = 8


@frozen
class Photo:
    """A computer before a step, and what was told until then.

    Attributes:
        logged: length of the log.
        step: the call that comes next, for people.
        write: what it writes.
    """

    disk: Disk
    ledger: Ledger
    now: int
    number: int
    logged: int
    step: str
    write: Write | None


@define
class Explorer:
    """One script and its crashes. Everything follows from the seed and the script's number.

    Attributes:
        planted: the bug that was put in.
        met: how often what happened.
        words: the script.
        faults: what went wrong in it.
        photos: one for each step of it.
        crash: what the newest crashes did, for people.
    """

    seed: int
    script: int
    planted: str | None = None
    met: Counter[str] = field(factory=Counter)
    computer: Computer = field(factory=Computer)
    words: list[str] = field(factory=list)
    faults: list[str] = field(factory=list)
    photos: list[Photo] = field(factory=list)
    crash: list[str] = field(factory=list)
    _log: list[tuple[str, object]] = field(factory=list)
    _seen: set[tuple[object, ...]] = field(factory=set)

    def rng(self, *more: object) -> random.Random:
        return random.Random("/".join(str(part) for part in (self.seed, self.script, *more)))

    # ---- the script

    def run(self) -> None:
        """Run the script and take the photos."""
        rng = self.rng()
        world = World(self.computer, met=self.met, log=self._log)
        number, drawn = divmod(self.script, 2)
        if self.script % 4:  # else the store's directories are still to be made
            self.computer.boot(Disk())
            world.process().store.head("nothing")
        self.computer.boot(self.computer.disk.settled(), watch=self._camera(world, self.photos))
        if rng.random() < 0.6:
            world.strict = False
            self.computer.faults = random_faults(rng)
        words = random_words if drawn else iter(SCRIPTS[(number + self.seed) % len(SCRIPTS)].split())
        try:
            self.words = perform(world, words, rng)
        except Violation as violation:
            self._explain(violation, world, len(self.photos), 0)
            raise
        finally:
            self.computer.pid = 0  # so that no store that is dropped takes itself for a process that ends well
        self._camera(world, self.photos)("nothing", "", None)
        self.faults = list(self.computer.met)
        self._count_faults()

    def _camera(self, world: World, photos: list[Photo]) -> Callable[[str, str, Write | None], None]:
        def shoot(call: str, name: str, write: Write | None) -> None:
            world.shared = True
            photos.append(
                Photo(
                    self.computer.disk.copy(),
                    world.ledger,
                    world.now,
                    world.number,
                    len(world.log),
                    f"{call} {name}",
                    write,
                )
            )

        return shoot

    def _count_faults(self) -> None:
        names = {"EIO at fsync": "sync failed", "ENOSPC at fsync": "sync failed", "short at write": "short write"}
        names |= {"EIO at write": "write failed", "ENOSPC at write": "write failed"}
        self.met.update(names.get(fault, fault) for fault in self.computer.met)
        self.computer.met.clear()

    # ---- one crash

    def states(self) -> Iterator[int]:
        """Crash each photo in several ways, in more of them where a journal is not on the disk.

        Yields how many states that were new each of them met.
        """
        for step, photo in enumerate(self.photos):
            for variant in range(WET_VARIANTS if photo.disk.wet(".jsonl") else VARIANTS):
                yield self.state(step, variant)

    def state(self, step: int, variant: int) -> int:
        """Crash one photo in one way, and have a store recover; gives how many states that were new it met."""
        rng = self.rng(step, variant)
        photo = self.photos[step]
        self.crash = []
        world = World(self.computer, met=self.met, log=self._log[: photo.logged], serial=1000)
        try:
            if variant % 2 == 0:
                return self._cut_and_recover(photo, world, rng, "any" if variant or rng.random() < 0.7 else "least")
            how = rng.choice((self._kill, self._witness, self._witness, self._again))
            return how(photo, world, rng)
        except Violation as violation:
            self._explain(violation, world, step, variant)
            raise
        finally:
            self.computer.pid = 0

    def _cut_and_recover(self, photo: Photo, world: World, rng: random.Random, kind: str) -> int:
        disk = self._cut(photo, rng, kind)
        if self._known("cut", disk, photo):
            return 0
        self._live(world, photo, disk)
        recover(world, rng)
        return 1

    def _kill(self, photo: Photo, world: World, rng: random.Random) -> int:
        """All processes die; what programs saw is still there."""
        disk = self._killed(photo, rng)
        if self._known("kill", disk, photo):
            return 0
        self.met["kill"] += 1
        self._live(world, photo, disk)
        recover(world, rng)
        return 1

    def _witness(self, photo: Photo, world: World, rng: random.Random) -> int:
        """All processes die; a new one reads, or does more, and tells; the power fails."""
        self.met["witness"] += 1
        return self._lives(photo, world, rng, self._killed(photo, rng), readers=rng.random() < 0.7)

    def _again(self, photo: Photo, world: World, rng: random.Random) -> int:
        """The power fails; it fails again while a store recovers, or the store is killed first and another recovers."""
        self.met["again"] += 1
        return self._lives(photo, world, rng, self._cut(photo, rng, "any"), lives=rng.choice((1, 1, 2)))

    def _lives(
        self, photo: Photo, world: World, rng: random.Random, disk: Disk, *, lives: int = 1, readers: bool = False
    ) -> int:
        """Some lives after a first crash, the last of which ends in a power cut, and a recovery."""
        for left in range(lives, 0, -1):
            photo = self._one_life(photo, world, rng, disk, readers=readers)
            if left > 1 and rng.random() < 0.7:
                disk = self._killed(photo, rng)
            else:
                disk = self._cut(photo, rng, rng.choice(("least", "any", "any")))
        world.strict = True
        self._live(world, photo, disk)
        recover(world, rng)
        return lives + 1

    def _one_life(self, photo: Photo, world: World, rng: random.Random, disk: Disk, *, readers: bool) -> Photo:
        """A new process comes and recovers, or only reads; gives a photo of some moment of that."""
        photos: list[Photo] = []
        self._live(world, photo, disk, watch=self._camera(world, photos))
        if not readers and rng.random() < 0.3:
            world.strict, self.computer.faults = False, random_faults(rng)
        if readers:
            process = world.process()
            if rng.random() < 0.3:
                world.list(process)
            for run_id in list(world.ledger.runs):
                world.look(process, run_id)
        else:
            recover(world, rng)
        self._count_faults()
        self._camera(world, photos)("nothing", "", None)
        photo = photos[-1] if rng.random() < (0.8 if readers else 0.2) else rng.choice(photos)
        del world.log[photo.logged :]
        return photo

    def _live(self, world: World, photo: Photo, disk: Disk, *, watch: Callable[..., None] | None = None) -> None:
        """Boot with what is left."""
        self.computer.boot(disk, watch=watch)
        world.processes.clear()
        world.log.append(("== all are dead, and a new process comes", ""))
        world.ledger, world.shared, world.now, world.number = photo.ledger, True, photo.now, photo.number

    def _known(self, how: str, disk: Disk, photo: Photo) -> bool:
        key = (how, disk.contents(), id(photo.ledger))
        if key in self._seen:
            return True
        self._seen.add(key)
        return False

    def _killed(self, photo: Photo, rng: random.Random) -> Disk:
        """The disk and the page cache after a kill, which may come in the midst of a write."""
        disk = photo.disk.copy()
        self.crash.append(f"killed before: {photo.step}")
        if photo.write is not None and rng.random() < 0.5:
            node, at, data = photo.write
            part = rng.randrange(len(data) + 1)
            file = disk.nodes[node]
            assert isinstance(file, File)
            disk.nodes[node] = file.written(at, data[:part])
            self.crash[-1] += f", of which {part} of {len(data)} bytes were done"
            self.met["killed in a write"] += 1
        return disk

    def _cut(self, photo: Photo, rng: random.Random, kind: str) -> Disk:
        """What is left after a power cut."""
        disk, notes = photo.disk.cut(rng, kind)
        self.crash.append(f"power cut before: {photo.step} ({kind})")
        for path, what, much in notes:
            self.crash.append(f"  {path}: {what} {much}")
            self._count(path, what)
        if kind == "least":
            self.met["lost everything"] += 1
        return disk

    def _count(self, path: str, what: str) -> None:
        if what == "names":
            self.met["lost a name"] += 1
        elif path.endswith(".jsonl") and what == "torn":
            self.met["torn journal"] += 1
        elif path.endswith(".jsonl") and what == "nul":
            self.met["NULs at a journal's end"] += 1
        elif path.endswith(".head.json") and what == "torn":
            self.met["torn head"] += 1

    def _explain(self, violation: Violation, world: World, step: int, variant: int) -> None:
        """Tell how it came about, and how to see it again."""
        note = violation.add_note
        faults = ", ".join(self.faults + self.computer.met)
        note(f"script: {' '.join(self.words)}" + (f" ({faults})" if faults else ""))
        note("what was done:\n" + "\n".join(f"  {what} {outcome}".rstrip() for what, outcome in world.log))
        note("crashes:\n" + "\n".join(f"  {line}" for line in self.crash))
        planted = "" if self.planted is None else f" --plant {self.planted!r}"
        note(
            f"again: python tests/crash/crash_states.py --seed {self.seed} --script {self.script} "
            f"--step {step} --variant {variant}{planted}"
        )


def random_faults(rng: random.Random) -> dict[tuple[str, int], Fault]:
    """Some calls that go wrong, now and then two or three in a row, or what comes to mend them too."""
    faults = {}
    for _ in range(rng.randint(1, 5)):
        kind = rng.choice(("EIO", "EIO", "ENOSPC", "short", "kill"))
        call = rng.choice(("write", "write", "fsync", "fsync", "rename", "create", "unlink", "mkdir"))
        first = rng.randrange(12 if call in ("write", "fsync") else 4)
        for count in range(first, first + rng.choice((1, 1, 2, 3))):
            faults[call, count] = Fault(kind, rng.choice((0.0, rng.random(), 1.0)))  # type: ignore[arg-type]
    if rng.random() < 0.3:
        faults["truncate", 0] = Fault("EIO")
    return faults
