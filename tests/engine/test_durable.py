"""durable: any callable as a workflow of one step."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from attrs import frozen

from stepwell import (
    CodecError,
    InvalidInputError,
    RetryPolicy,
    RunCompleted,
    RunFailed,
    Step,
    durable,
    step,
    workflow,
)
from stepwell import events as e
from stepwell.testing import raised, replay, returned, simulate

from .tools import Tally


@frozen
class Item:
    name: str
    count: int = 1


def price(item: Item, rate: int = 2, *, extra: int = 0) -> Item:
    return Item(item.name, item.count * rate + extra)


async def fetch(url: str) -> tuple[str, int]:
    return url, 200


class Shop:
    def __init__(self, owner: str) -> None:
        self.owner = owner

    def sell(self, item: str) -> str:
        return f"{self.owner} sells {item}"

    def __call__(self, item: str) -> str:
        return item

    @classmethod
    def build(cls, owner: str) -> str:
        return owner

    @staticmethod
    def check(item: str) -> bool:
        return bool(item)


SHOP = Shop("ada")
LAMBDAS: list[Callable[[int], int]] = [lambda x: 2 * x]

CALLS: dict[str, tuple[Callable[[], Any], tuple[Any, ...], Any]] = {
    "price": (lambda: durable(price), (Item("tea"),), Item("tea", 2)),
    "fetch": (lambda: durable(fetch), ("/x",), ("/x", 200)),
    "sell": (lambda: durable(SHOP.sell), ("tea",), "ada sells tea"),
    "build": (lambda: durable(Shop.build), ("ada",), "ada"),
    "check": (lambda: durable(Shop.check), ("",), False),
    "triple": (lambda: durable(partial(price, rate=3), name="triple"), (Item("tea"),), Item("tea", 3)),
    "bonus": (lambda: durable(partial(price, extra=9), name="bonus"), (Item("tea"), 1), Item("tea", 10)),
    "shop": (lambda: durable(SHOP, name="shop"), ("tea",), "tea"),
    "twice": (lambda: durable(LAMBDAS[0], name="twice"), (2,), 4),
    "Item": (lambda: durable(Item), ("tea", 3), Item("tea", 3)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_callable_of_any_kind_is_a_workflow_of_one_step(bench: Any, name: str) -> None:
    """Made anew at each use, it is the same workflow."""
    make, args, result = CALLS[name]
    engine = bench.engine(make(), make())
    assert RunCompleted("r", result) == engine.start(make(), *args, run_id="r")
    assert RunCompleted("r", result) == engine.start(make(), *args, run_id="r")
    assert RunCompleted("r", result) == bench.engine().start(make(), *args, run_id="r")
    start, done, _ = engine.history("r")
    assert (name, name, "1") == (start.workflow, done.step_id, start.version)


def test_defaults_are_recorded_and_the_call_is_made_once(bench: Any) -> None:
    tally = Tally()

    def count(name: str, by: int = 5) -> int:
        tally.add(name)
        return by

    engine = bench.engine()
    for _ in range(2):
        assert RunCompleted("r", 5) == engine.start(durable(count), "x", run_id="r")
    assert (1, ["x", 5]) == (tally["x"], engine.get("r").input)


def test_it_is_tried_again_as_the_policy_says(bench: Any) -> None:
    tally = Tally()

    def shaky() -> int:
        if tally.add("x") < 3:
            raise OSError("no")
        return 7

    engine = bench.engine()
    assert isinstance(engine.start(durable(shaky), run_id="once"), RunFailed)
    tally.counts.clear()
    patient = durable(shaky, version="2", retry=RetryPolicy(3, initial=0))
    assert RunCompleted("r", 7) == engine.start(patient, run_id="r")
    assert 3 == tally["x"]
    assert RunCompleted("once", 7) == engine.retry("once")


def test_what_step_says_of_a_function_holds(bench: Any) -> None:
    tally = Tally()

    @step(name="load", retry=RetryPolicy(2, initial=0), into=Item)
    def shaky() -> Any:
        if tally.add("x") < 2:
            raise OSError("no")
        return Item("tea")

    engine = bench.engine()
    assert RunCompleted("r", Item("tea")) == engine.start(durable(shaky), run_id="r")
    assert "load" == engine.get("r").workflow


def test_what_is_not_the_same_call_is_not_the_same_workflow(memory: Any) -> None:
    engine = memory.engine(durable(price), durable(SHOP.sell), durable(partial(price, rate=3), name="p"))
    others = [
        durable(price, retry=RetryPolicy(2)),
        durable(Shop("bob").sell),
        durable(partial(price, rate=4), name="p"),
        durable(fetch, name="price"),
    ]
    for other in others:
        with pytest.raises(InvalidInputError, match="two workflows are named"):
            engine.submit(other, "x")
    assert durable(price) == durable(price)
    assert hash(durable(price)) == hash(durable(price))
    assert durable(price) != durable(price, version="2")
    assert durable(price).__eq__(price) is NotImplemented


def test_wrong_arguments_are_refused_before_anything_is_written(bench: Any) -> None:
    engine = bench.engine()
    with pytest.raises(InvalidInputError, match="workflow 'price', argument 'item'"):
        engine.start(durable(price), "tea")
    with pytest.raises(InvalidInputError, match="was given 3 arguments"):
        engine.start(durable(price), Item("tea"), 1, 2)
    with pytest.raises(InvalidInputError, match="was given 0 arguments"):
        engine.start(durable(price))
    assert [] == engine.runs()


def generate() -> Any:
    yield 1


def variable(*items: str) -> None: ...


def keyword(*, item: str) -> None: ...


@workflow
def flow() -> Any:
    yield Step(price, Item("tea"))


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (lambda x: x, r"a lambda has no name of its own .*say durable\(..., name=...\)"),
        (partial(price, rate=3), r"a partial has no name of its own .*say durable\(..., name=...\)"),
        (SHOP, r"an object has no name of its own .*say durable\(..., name=...\)"),
        (generate, r"durable\(\) can't call the generator function 'generate'"),
        (variable, r"parameter \*items: .* is variadic positional.*functools.partial"),
        (keyword, "parameter item: .* is keyword-only.*functools.partial"),
        (dict.update, "Python can't tell its parameters .*wrap it in a function of your own"),
        (flow, "is a workflow already; start it as it is"),
        (durable(price), "is a workflow already"),
        (3, r"durable\(\) needs a function, got 3; write durable\(f\)"),
    ],
    ids=["lambda", "partial", "object", "generator", "variable", "keyword", "method", "flow", "durable", "number"],
)
def test_what_can_not_be_one_is_refused_with_a_remedy(fn: Any, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        durable(fn)


@pytest.mark.parametrize(
    "options",
    [{"name": ""}, {"name": "a#b"}, {"version": 2}, {"timeout": 0}, {"retry": 3}, {"at_most_once": 1}],
    ids=str,
)
def test_wrong_options_are_refused_when_it_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        durable(price, **options)


def test_annotations_are_read_when_they_are_needed(memory: Any) -> None:
    """Not when it is made, where a class that comes later in the module is not there yet."""

    def wrong(item: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
        return item

    made = durable(wrong)
    with pytest.raises(CodecError, match=r"'Nowhere' of .* can't be resolved"):
        memory.engine().start(made, 1)


def test_it_is_tested_like_any_workflow() -> None:
    assert Step(price, Item("tea"), 2) == replay(durable(price), Item("tea")).next
    assert Item("x") == replay(durable(price), Item("tea"), history=[returned(Item("x"))]).result
    failed = replay(durable(price), Item("tea"), history=[raised(ValueError("no"))])
    assert "step 'price' failed: ValueError: no" == failed.failure.message
    run = simulate(durable(price, retry=RetryPolicy(3)), Item("tea"), fakes={price: [OSError("no"), Item("y")]})
    assert Item("y") == run.result
    assert [1, 2] == [call.attempt for call in run.calls]


PROGRAM = """
import json, os, sys
from stepwell import Engine, RetryPolicy, durable
from stepwell.worker import Worker

def mark(name: str) -> str:
    fd = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{name}\\n".encode())
    os.close(fd)
    if sys.argv[2] == "die":
        print("here", flush=True)
        sys.stdin.read()  # until the end
    return name

engine = Engine(sys.argv[1], [durable(mark)])
if sys.argv[2] == "submit":
    engine.submit(durable(mark), "one", run_id="r")
    print("null")
elif sys.argv[2] == "die":
    engine.start(durable(mark), "one", run_id="r")
else:
    print(json.dumps([dict(Worker(engine, threads=2).run(drain=True)), engine.get("r").result]))
"""


def test_a_worker_in_another_process_goes_on_with_it(
    disk: Any, python: Callable[..., subprocess.Popen[str]], tmp_path: Any
) -> None:
    """After a kill too: what was not recorded is called once more."""

    def call(what: str) -> Any:
        process = python(PROGRAM, disk.url, what)
        said, _ = process.communicate(timeout=60)
        assert 0 == process.returncode
        return json.loads(said)

    call("submit")
    process = python(PROGRAM, disk.url, "die")
    assert process.stdout is not None
    assert "here\n" == process.stdout.readline()
    process.kill()
    process.wait()
    assert [{"completed": 1}, "one"] == call("work")
    assert ["one", "one"] == (tmp_path / "effects").read_text().split()
    assert [{}, "one"] == call("work")
    (event,) = (event for event in disk.engine().history("r") if isinstance(event, e.Step))
    assert "mark" == event.name
