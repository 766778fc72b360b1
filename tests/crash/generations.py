"""Generations of processes on one store, each of which may be killed, and what their parent makes of the rest.

A generation is an owner, who drives the run, and perhaps an outsider at the same time, who signals, pauses or cancels
it. They are forked; each tells its parent through a pipe of its own, and never goes back into the parent's code.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import selectors
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from attrs import field, fields, frozen
from tests.crash import sqlite_vfs
from tests.crash.faults import Killer, OsFaults, Point
from tests.crash.places import ON_SERVERS, apart, place_of
from tests.crash.planted import plant
from tests.crash.requests import Requests
from tests.crash.story import RESULT, TRIP, drive, drive_trip, make_order, make_trip
from tests.crash.witness import AckStore, Evidence, Witness

from stepwell import Engine
from stepwell.environment import Environment
from stepwell.errors import ConflictError, NotFoundError, RunBusyError, RunClosedError
from stepwell.outcomes import Outcome, RunPaused
from stepwell.store import Store
from stepwell.testing.environments import InlineExecutor
from stepwell_stores import open_store

__all__ = ["ERRANDS", "End", "Life", "Scene", "check", "end_here", "live", "memory_folder", "scene", "warm_up"]

PATIENCE = 60
"""Seconds after which a process that does not end is taken for hung."""

RUN = "r"
Plot: TypeAlias = Literal["order", "retry", "cancel"]
ERRANDS: dict[str, tuple[str, ...]] = {
    "order": ("approve", "when", "both", "pause"),
    "retry": ("go",),
    "cancel": ("cancel",),
}
"""What outsiders do, by plot."""

_TOO_EARLY_OR_LATE = (ConflictError, NotFoundError, RunBusyError, RunClosedError)


@frozen
class Scene:
    """What all processes of one story share.

    Attributes:
        kind: of the store, `jsonl`, `sqlite`, `postgres`, `redis` or `s3`.
        folder: where the store is.
        plot: which workflow is run, and what is done to it.
        planted: the bug that was put in, or None.
        threads: whether steps of branches run in threads, and leases are renewed.
        late: how many generations there were.
    """

    kind: str
    folder: Path
    plot: Plot = "order"
    planted: str | None = None
    threads: bool = False
    late: list[int] = field(factory=lambda: [0])

    def open(self, folder: Path | None = None) -> Store:
        """Open the store. On a server nobody sees who has died, so there every generation comes an hour later."""
        url = self.url(folder)
        if not self.remote:
            return open_store(url)
        late = self.late[0] * 3_600_000_000
        return open_store(url, clock=lambda: time.time_ns() // 1_000 + late)

    def url(self, folder: Path | None = None) -> str:
        """Where the store is, or would be in another folder."""
        return place_of(self.kind, folder or self.folder)

    @property
    def remote(self) -> bool:
        """Whether it is on a server."""
        return self.kind in ON_SERVERS

    def environment(self) -> Environment:
        return Environment() if self.threads else Environment(executor=InlineExecutor(), threads=False)


@frozen
class Life:
    """One process: what it does, and where it dies (None: it doesn't)."""

    point: Point | None = None
    errand: str | None = None
    mended: bool = False


@frozen
class End:
    """How a process ended, and how many points it had if it was not killed."""

    killed: bool
    operations: int = 0
    writes: int = 0
    told: bytes = field(default=b"", repr=False)


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A new folder, in memory where there is such a place; gone afterwards."""
    shared = Path("/dev/shm")
    place = shared if shared.is_dir() and os.access(shared, os.W_OK) else None
    base = Path(tempfile.mkdtemp(prefix="stepwell-crash-", dir=place))
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def scene(kind: str, **how: Any) -> Iterator[Scene]:
    """A place for a story; memory will do, since a kill leaves what was written."""
    with memory_folder() as base:
        (base / "data").mkdir()
        yield Scene(kind, base / "data", **how)


def live(scene: Scene, lives: list[Life], evidence: Evidence) -> list[End]:
    """Fork these processes, take in what they tell, and wait until all have ended."""
    scene.late[0] += 1
    with selectors.DefaultSelector() as ready, ExitStack() as pipes:
        pids, told = [], dict[int, bytearray]()
        for one in lives:
            pid, fd = _fork(partial(_be, scene, one))
            pids.append(pid)
            told[fd] = bytearray()
            pipes.callback(os.close, fd)
            ready.register(fd, selectors.EVENT_READ)
        while ready.get_map():
            for key, _ in ready.select():
                part = os.read(key.fd, 65536)
                told[key.fd] += part
                if not part:
                    ready.unregister(key.fd)
        ends = [_end(pid, bytes(words), evidence) for pid, words in zip(pids, told.values(), strict=True)]
    for end in ends:
        evidence.take(end.told)
    return ends


def _fork(program: Callable[[Witness], None]) -> tuple[int, int]:
    """Run a program in a child; its pid, and the pipe through which it tells."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    code = 1
    try:
        gc.disable()  # it lives for some milliseconds
        faulthandler.register(signal.SIGALRM, chain=True)  # tell where it hangs, then end
        signal.alarm(PATIENCE)
        os.close(read)
        witness = Witness(write)
        try:
            program(witness)
            code = 0
        except BaseException:
            witness.trouble(traceback.format_exc())
    finally:
        os._exit(code)  # nothing of the parent's is to be run here


def _end(pid: int, told: bytes, evidence: Evidence) -> End:
    status = os.waitpid(pid, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not killed and status and b"\ntrouble " not in b"\n" + told:
        what = f"hung for {PATIENCE} s" if os.WIFSIGNALED(status) else "died"
        evidence.violations.append(f"a process {what} (status {status})")
    operations = next((line.split() for line in told.splitlines() if line.startswith(b"operations ")), None)
    if operations is None:
        return End(killed, told=told)
    return End(killed, int(operations[1]), int(operations[2]), told)


# ---- in the child


def _be(scene: Scene, life: Life, witness: Witness) -> None:
    """Be a process of the story, from opening the store to closing it."""
    plant(scene.planted)
    killer = Killer(life.point, witness.note)
    with ExitStack() as faults:
        faults.enter_context(Requests(killer, scene.kind) if scene.remote else OsFaults(killer))
        if scene.kind == "sqlite":
            faults.enter_context(sqlite_vfs.install(killer))
        mended = [life.mended]
        workflow = make_order(witness) if scene.plot == "order" else make_trip(witness, mended)
        store = AckStore(scene.open(), witness, early=scene.planted == "ack before write")
        with Engine(store, [workflow], environment=scene.environment()) as engine:
            if life.errand is None:
                outcome = _own(scene, engine, workflow, witness, mended)
                witness.end(RUN, outcome.status)
                _judge(scene, outcome, witness)
            else:
                try:
                    _go(life.errand, engine, witness)
                except _TOO_EARLY_OR_LATE as error:
                    witness.note(f"outsider met {type(error).__name__}")
    witness.operations(killer.operations, killer.writes)


def _own(scene: Scene, engine: Engine, workflow: Any, witness: Witness, mended: list[bool]) -> Outcome[Any]:
    while True:
        if scene.plot == "order":
            outcome = drive(engine, workflow, witness, RUN)
        else:
            try:
                outcome = drive_trip(engine, workflow, witness, mended, cancel=scene.plot == "cancel", run_id=RUN)
            except RunClosedError:  # an outsider was faster
                continue
        if not isinstance(outcome, RunPaused):  # by an outsider who did not live to unpause it
            return outcome
        with contextlib.suppress(RunClosedError):  # or by one who lived after all, and then the run may have ended
            engine.unpause(RUN)


def _go(errand: str, engine: Engine, witness: Witness) -> None:
    """Do something to the run from outside."""
    if errand == "pause":
        engine.pause(RUN, "wait a moment")
        engine.unpause(RUN)
    elif errand == "cancel":
        engine.cancel(RUN, "not today")
    for name, value in (("approve", "yes"), ("when", "soon"), ("go", "go")):
        if errand in (name, "both") and (name != "go" or errand == "go"):
            engine.signal(RUN, name, value, id=name)
            witness.signal(RUN, name)
    witness.note("outsider came through")


def _judge(scene: Scene, outcome: Outcome[Any], witness: Witness) -> None:
    """A run that has ended must have ended rightly."""
    if outcome.status == "completed":
        expected = RESULT if scene.plot == "order" else TRIP
        if outcome.unwrap() != expected or scene.plot == "cancel":
            witness.trouble(f"the run came to {outcome.unwrap()!r}")
    elif outcome.status == "failed" or (outcome.status == "cancelled" and scene.plot != "cancel"):
        witness.trouble(f"the run ended as {outcome!r}")


# ---- in the parent


def _copied(scene: Scene) -> Path:
    """A copy of what a store has on disk, without its lock files, which are the dead's."""
    folder = scene.folder.with_name("copy")
    (folder / "runs").mkdir(parents=True)
    for path in (*scene.folder.glob("runs/*.*"), *scene.folder.glob("runs.db*")):
        if path.is_file() and not path.name.endswith("-shm"):
            folder.joinpath(path.relative_to(scene.folder)).write_bytes(path.read_bytes())
    return folder


def end_here(scene: Scene, evidence: Evidence) -> End:
    """Drive the run to its end in this very process, which is cheaper; a new store and engine all the same."""
    witness, mended = Recollection(), [RUN in evidence.reopened]
    workflow = make_order(witness) if scene.plot == "order" else make_trip(witness, mended)
    try:
        with Engine(AckStore(scene.open(), witness), [workflow], environment=scene.environment()) as engine:
            outcome = _own(scene, engine, workflow, witness, mended)
            witness.end(RUN, outcome.status)
            _judge(scene, outcome, witness)
    except Exception:
        witness.trouble(traceback.format_exc())
    evidence.take(bytes(witness.told))
    return End(False, told=bytes(witness.told))


class Recollection(Witness):
    """A witness whose parent is itself."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.told = bytearray()

    def _tell(self, *words: object) -> None:
        self.told += (" ".join(str(word) for word in words) + "\n").encode()


def warm_up(kind: str) -> None:
    """Run each story once here, so that children find imports done and caches filled."""
    silent = Witness(-1)
    if kind in ON_SERVERS:  # here nothing may be asked
        kind = "sqlite"
    plots: tuple[Plot, ...] = ("order", "retry", "cancel")
    for plot in plots:
        with scene(kind, plot=plot) as place:
            mended = [False]
            workflow = make_order(silent) if plot == "order" else make_trip(silent, mended)
            with Engine(place.open(), [workflow], environment=place.environment()) as engine:
                _own(place, engine, workflow, silent, mended)


def check(scene: Scene, evidence: Evidence, *, in_place: bool = False) -> None:
    """Open the store anew and compare; on a copy, unless the look itself is to be part of the story.

    (Whoever reads a store after a crash mends it by that, and the next process would find less to do.)
    """
    if scene.remote:  # nobody else can look without opening it
        found = apart(lambda: _compared(scene, scene.folder, evidence))
        for one in fields(Evidence):
            setattr(evidence, one.name, getattr(found, one.name))
        return
    if scene.kind == "jsonl":
        journals = [path.read_bytes() for path in scene.folder.glob("runs/*.jsonl")]
        evidence.counts["torn tails seen"] += sum(not data.endswith(b"\n") for data in journals)
    folder = scene.folder
    if not in_place:
        folder = _copied(scene)
    _compared(scene, folder, evidence)
    if not in_place:
        shutil.rmtree(folder)


def _compared(scene: Scene, folder: Path, evidence: Evidence) -> Evidence:
    """Open the store anew, and have the evidence compare itself with it."""
    silent = Witness(-1)
    workflow = make_order(silent) if scene.plot == "order" else make_trip(silent, [True])
    try:
        with Engine(scene.open(folder), [workflow], environment=scene.environment()) as engine:
            evidence.check(engine.store, engine=engine)
    except Exception:
        evidence.violations.append("the store can't be read: " + " | ".join(traceback.format_exc().splitlines()))
    return evidence
