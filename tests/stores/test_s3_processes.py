"""The store in a bucket of a real server: processes that race, stop, die and fork, and connections that are cut."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.servers.proxy import Link, proxy

from stepwell import Engine, Flow, Step, Transaction, workflow
from stepwell.errors import InvalidInputError
from stepwell.store import AlreadyCommitted, Committed, Created, Lease, LeaseRequest, NotApplied, Unknown, envelope
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores import open_store
from stepwell_stores.s3 import S3Store
from stepwell_stores.s3 import bucket as s3_bucket

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def url(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new store on a real server, which the environment leads to."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    found: str = s3_server.url()
    return found


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Start]:
    """Start a program in a process of its own; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", BEGIN + code, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


BEGIN = """
import json, os, signal, sys
from stepwell.store import LeaseRequest, Lease, Committed, Created
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores import open_store
url = sys.argv[1]
store = open_store(url)
def say(*words):
    print(json.dumps(words), flush=True)
"""

RACE = """
me = sys.argv[2]
store.head("warm")
say("ready")
sys.stdin.readline()
made = store.create("r", [a_start()], head=a_head(), attempt_id=me, lease=LeaseRequest(me, 30))
told = [store.append("r", None, None, [a_record([me, i])], attempt_id=f"{me}-{i}").seq for i in range(4)]
got = store.claim("busy", me, 30)
say(type(made).__name__, told, got.fence if isinstance(got, Lease) else None)
sys.stdin.readline()  # whoever ends gives its lease up
store.close()
"""


def test_of_eight_processes_one_creates_one_owns_and_all_are_heard(url: str, python: Start) -> None:
    with closing(open_store(url)) as store:
        store.create("busy", [a_start()], head=a_head(), attempt_id="a")
        racers = [python(RACE, url, f"p{number}") for number in range(8)]
        for racer in racers:
            assert racer.stdout is not None
            assert '["ready"]\n' == racer.stdout.readline()
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = [json.loads(racer.stdout.readline()) for racer in racers if racer.stdout is not None]
        assert Counter(Created=1, Exists=7) == Counter(made for made, _, _ in said)
        assert [2] == [fence for _, _, fence in said if fence is not None]
        assert list(range(1, 33)) == sorted(seq for _, told, _ in said for seq in told)
        tail = store.read("r")
        assert tail is not None
        assert list(range(33)) == [envelope(line).offset for line in tail.records]


SLEEPER = """
lease = store.claim("r", "sleeper", 0.2)
say(lease.fence, lease.seq)
put = store._opening.bucket._put
def asleep(key, data, mode):
    if key.startswith("runs/r/0"):
        os.kill(os.getpid(), signal.SIGSTOP)
        mode = "overwrite" if sys.argv[2] == "unfenced" else mode
    put(key, data, mode)
store._opening.bucket._put = asleep
done = store.append("r", 0, lease.seq, [a_record("stale")], attempt_id="x", fence=lease.fence)
say(type(done).__name__)
store.close()
"""


@pytest.mark.parametrize("kind", ["fenced", "unfenced"])
def test_a_process_that_was_stopped_before_its_write_is_fenced_when_it_goes_on(
    url: str, python: Start, kind: str
) -> None:
    """Between its last look and its write another took the run over; without the condition it writes all the same."""
    with closing(open_store(url)) as store:
        store.create("r", [a_start()], head=a_head(), attempt_id="a")
        for number in range(2 if kind == "fenced" else 1):
            sleeper = python(SLEEPER, url, kind)
            assert sleeper.stdout is not None
            fence, seq = json.loads(sleeper.stdout.readline())
            _, status = os.waitpid(sleeper.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            lease = None
            while not isinstance(lease, Lease):  # it lapses
                lease = store.claim("r", "next", 30)
            assert lease.fence == fence + 1
            fresh = [a_record(["fresh", number])]
            if number % 2 == 0:
                assert Committed(seq, 0) == store.append("r", 0, seq, fresh, attempt_id="x", fence=lease.fence)
            sleeper.send_signal(signal.SIGCONT)
            assert json.loads(sleeper.stdout.readline()) == (["Fenced"] if kind == "fenced" else ["Committed"])
            store.release(lease)
        problems = [part.problem for part in store.verify() if part.problem is not None]
        assert bool(problems) == (kind == "unfenced")


WORKER = """
from stepwell import Engine, Flow, Now, Step, Sleep, workflow
import obstore
left = int(sys.argv[2])
def deadly(name):
    real = getattr(obstore, name)
    def call(*given, **named):
        global left
        left -= 1
        if left == 0 and sys.argv[3] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = real(*given, **named)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    setattr(obstore, name, call)
for name in ("put", "get", "delete"):
    deadly(name)
def charge(n):
    with open("effects", "a") as file:
        file.write(f"{n}\\n")
    return n
@workflow
def order() -> Flow[int]:
    total = 0
    for n in range(3):
        total += yield from Step(charge, n)
    yield Sleep(0.01)
    return total + (yield from Step(charge, 3))
engine = Engine(store, [order])
engine.submit(order, run_id="r")
while engine.wait("r", 0).status != "completed":
    engine.run_due()
say(engine.wait("r", 0).unwrap(), left)
engine.close()
"""


def test_a_worker_that_is_killed_at_any_request_repeats_no_recorded_step(
    url: str, python: Start, tmp_path: Path
) -> None:
    """It is killed before or after its n-th request, and another goes on; a step runs again at most once a kill."""
    effects, kills = tmp_path / "effects", 0
    for number, at in enumerate(range(6, 27, 5)):
        effects.unlink(missing_ok=True)
        place = f"{url}{number}"
        first = python(WORKER, place, str(at), ("before", "after")[number % 2])
        first.communicate(timeout=60)
        kills += first.returncode == -signal.SIGKILL
        assert first.returncode in (0, -signal.SIGKILL)
        second = python(WORKER, place, "-1", "never")
        assert 6 == json.loads(second.communicate(timeout=60)[0])[0]
        counts = Counter(effects.read_text().split())
        assert set("0123") == set(counts)
        assert counts.total() <= 5, "one step was not recorded when it died"
        with closing(open_store(place)) as store:
            assert [] == [part.problem for part in store.verify() if part.problem is not None]
    assert kills >= 4


FORKED = """
store.head("r")
child = os.fork()
if child == 0:
    signal.alarm(20)
    try:
        store.head("r")
    except Exception as error:
        say(type(error).__name__, str(error))
    os._exit(0)
os.waitpid(child, 0)
say(store.head("r"))
store.close()
"""

FORKED_FIRST = """
child = os.fork()
if child == 0:
    say(store.head("r"))
    store.close()
    os._exit(0)
os.waitpid(child, 0)
say(store.head("r"))
store.close()
"""


def test_a_fork_of_a_process_that_has_used_it_is_told_what_to_do(url: str, python: Start) -> None:
    """The driver would hang there. Forked before its first use, each process has its own."""
    said = python(FORKED, url).communicate(timeout=60)[0].splitlines()
    kind, text = json.loads(said[0])
    assert "StoreMisconfiguredError" == kind
    assert "fork before the store is used first, or start processes with 'spawn'" in text
    assert "[null]" == said[1]
    assert ["[null]", "[null]"] == python(FORKED_FIRST, url).communicate(timeout=60)[0].splitlines()


# ---- connections that are cut


def appended_through_cuts(server: Any, cuts: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], list[Any]]:
    """Append a number after each cut; how the cuts ended, and what is there."""
    monkeypatch.setattr(s3_bucket, "_PAUSES", ())
    chance, counts = random.Random(7), Counter[str]()
    with proxy(server.port) as between, closing(S3Store(server.open(), uuid.uuid4().hex)) as whole:
        prefix = whole._opening.reading()._prefix.rstrip("/")
        endpoint = f"http://127.0.0.1:{between.port}"
        with closing(S3Store("stepwell", prefix, endpoint=endpoint)) as store:
            made = store.create("r", [a_start()], head=a_head(), attempt_id="a", lease=LeaseRequest("me", 600))
            assert isinstance(made, Created)
            assert made.lease is not None
            seq = 1
            for number in range(cuts):
                way = chance.choice(["up", "down", "down"])
                between.cut_after(way, chance.randint(1, 900 if way == "up" else 200))  # type: ignore[arg-type]
                done: Any = None
                for attempt in range(9):
                    done = store.append("r", 0, seq, [a_record(number)], attempt_id="x", fence=made.lease.fence)
                    counts[type(done).__name__] += 1
                    if not isinstance(done, NotApplied | Unknown):
                        break
                    if attempt == 6:
                        between.heal()
                else:
                    raise AssertionError(f"it never comes through: {done}")
                if isinstance(done, Committed | AlreadyCommitted):
                    seq = done.seq + 1
                else:
                    counts["lost"] += 1
                    seq = done.seq
                between.heal()
        tail = whole.read("r")
        assert tail is not None
        return counts, [json.loads(line)["result"] for line in tail.records[1:]]


def test_no_cut_of_a_connection_loses_or_repeats_a_record(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    counts, found = appended_through_cuts(s3_server, 60, monkeypatch)
    assert list(range(60)) == found
    assert counts["Unknown"] > 10
    assert counts["AlreadyCommitted"] > 3, "some had been done"


def test_who_takes_what_exists_for_another_s_loses_count(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: an owner that does not compare what it finds at its key."""
    from stepwell_stores.s3 import decisions as s3_decisions

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    real = s3_decisions.append
    monkeypatch.setattr(
        s3_decisions,
        "append",
        lambda *given: real(*given[:-1], lambda *_: list[bytes]()),  # type: ignore[call-arg]
    )
    counts, found = appended_through_cuts(s3_server, 25, monkeypatch)
    assert counts["lost"] > 0, f"a record that is there was taken for another's: {found}"


def test_an_answer_that_a_real_server_gave_and_nobody_heard_is_found(
    s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3_bucket, "_PAUSES", (0.01,) * 5)
    with (
        proxy(s3_server.port) as between,
        closing(S3Store("stepwell", uuid.uuid4().hex, endpoint=f"http://127.0.0.1:{between.port}")) as store,
    ):
        made = store.create("r", [a_start()], head=a_head(), attempt_id="a", lease=LeaseRequest("me", 30))
        assert isinstance(made, Created)
        assert made.lease is not None
        cut = list[bytes]()

        def deaf(link: Link, way: Any, data: bytes) -> None:
            if way == "down" and not cut:
                cut.append(data[:12])
                link.cut()
            else:
                link.send(way, data)

        for seq in range(1, 6):
            cut.clear()
            between.on_bytes = deaf
            done = store.append("r", 0, seq, [a_record(seq)], attempt_id="x", fence=made.lease.fence)
            between.heal()
            assert [b"HTTP/1.1 200"] == cut
            assert AlreadyCommitted(seq, 0) == done


# ---- with an engine


def test_a_transaction_is_refused(url: str) -> None:
    @workflow
    def pay() -> Flow[None]:
        yield Transaction(lambda connection: None).options(name="pay")

    with Engine(url, [pay]) as engine:
        with pytest.raises(InvalidInputError, match=r"transaction 'pay' .*S3Store\) can't take .*or use a Step"):
            engine.start(pay, run_id="r")
        assert [] == engine.runs()


def test_the_command_line_works_on_a_bucket(url: str, python: Start) -> None:
    def add(n: int) -> int:
        return n + 1

    @workflow
    def count() -> Flow[int]:
        return (yield from Step(add, 1))

    with Engine(url, [count]) as engine:
        assert 2 == engine.start(count, run_id="r").unwrap()
    for arguments, words in {
        ("list",): "r",
        ("show", "r"): "complete",
        ("verify",): "r",
        ("doctor",): "conditional_writes",
    }.items():
        done = subprocess.run(
            [sys.executable, "-m", "stepwell", *arguments, "--store", url],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert words in done.stdout, arguments
