"""The scheduler beneath the simulation: one thread at a time, virtual time, deaths that reach nobody."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.dst import shims
from tests.dst.kernel import START, Kernel, Process

from stepwell import worker


def seconds(kernel: Kernel) -> float:
    """Virtual seconds since the beginning."""
    return (kernel.time - START) / 1e6


def test_time_goes_on_only_when_nobody_can_run() -> None:
    kernel, told = Kernel(1), list[tuple[str, float]]()

    def work(name: str, pause: float) -> None:
        for _ in range(2):
            kernel.sleep(pause)
            told.append((name, seconds(kernel)))

    process = Process(kernel, "p")
    kernel.spawn(process, lambda: work("slow", 3600), "slow")
    kernel.spawn(process, lambda: work("quick", 1), "quick")
    kernel.run()
    assert [("quick", 1), ("quick", 2), ("slow", 3600), ("slow", 7200)] == told


@pytest.mark.parametrize("seed", range(3))
def test_the_order_is_the_seeds(seed: int) -> None:
    def order(seed: int) -> list[int]:
        kernel, told = Kernel(seed), list[int]()

        def work(number: int) -> None:
            for _ in range(5):
                kernel.turn()
                told.append(number)

        for number in range(4):
            kernel.spawn(Process(kernel, f"p{number}"), lambda number=number: work(number), "main")  # type: ignore[misc]
        kernel.run()
        return told

    assert order(seed) == order(seed)
    assert order(seed) != order(seed + 1)


def test_a_process_that_is_killed_does_nothing_more() -> None:
    kernel, told = Kernel(1), list[str]()
    doomed, other = Process(kernel, "doomed"), Process(kernel, "other")

    def work(name: str) -> None:
        try:
            kernel.sleep(10)
            told.append(f"{name} lives")
        finally:
            kernel.turn()  # whatever it asks of this world, it is dead
            told.append(f"{name} cleans up")

    kernel.spawn(doomed, lambda: work("one"), "one")
    kernel.spawn(doomed, lambda: work("two"), "two")

    def kill() -> None:
        kernel.sleep(5)
        kernel.kill(doomed)

    kernel.spawn(other, kill, "main")
    kernel.run()
    assert [] == told
    assert 5 == seconds(kernel)
    assert [] == kernel.failures


def test_a_process_that_is_stopped_goes_on_later() -> None:
    kernel, told = Kernel(1), list[float]()
    process = Process(kernel, "p")
    process.paused = START + 90_000_000

    def work() -> None:
        kernel.sleep(1)
        told.append(seconds(kernel))

    kernel.spawn(process, work, "main")
    kernel.run()
    assert [91] == told


def test_an_error_that_nobody_expects_ends_it_and_is_told() -> None:
    kernel = Kernel(1)
    kernel.spawn(Process(kernel, "p"), lambda: 1 // 0, "main")
    kernel.run()
    assert "ZeroDivisionError" in kernel.failures[0]


def test_threads_events_and_queues_of_the_engine_are_waited_for_in_virtual_time() -> None:
    kernel, told = Kernel(1), list[object]()
    names: Any = worker

    def work() -> None:
        made, items = names.threading.Event(), names.SimpleQueue()

        def make() -> None:
            kernel.sleep(60)
            made.set()
            items.put("x")

        thread = names.threading.Thread(target=make, name="other")
        thread.start()
        told.append((made.wait(30), seconds(kernel)))
        told.append((made.wait(90), seconds(kernel)))
        told.append(items.get())
        thread.join()
        told.append((thread.is_alive(), names.time.monotonic() - START / 1e6))

    with shims.installed():
        kernel.spawn(Process(kernel, "p"), work, "main")
        kernel.run()
    assert [(False, 30), (True, 60), "x", (False, 60)] == told
    assert names.time is time
