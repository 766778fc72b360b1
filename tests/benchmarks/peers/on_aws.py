"""The AWS durable execution SDK on its local test runner, whose store is in memory."""

# It is installed in an environment of its own, not where types are checked.
# pyright: reportMissingImports=false, reportMissingModuleSource=false

from __future__ import annotations

import os
import queue
import sys
import time
from typing import Any

from aws_durable_execution_sdk_python import DurableContext, durable_execution
from aws_durable_execution_sdk_python.config import Duration
from aws_durable_execution_sdk_python_testing import DurableFunctionTestRunner
from tests.benchmarks.probes import peak_memory

__all__ = ["answer", "first", "many", "one", "resume"]

WARM = 10


@durable_execution
def steps(event: Any, context: DurableContext) -> int:
    count = int(event["count"])
    for number in range(count):
        context.step(lambda _scope, number=number: number, name="same")
    return count


marks: list[tuple[float, float]] = []


@durable_execution
def recorded(event: Any, context: DurableContext) -> int:
    """Steps and a wait; after it the function runs again, and all steps are answered from the record."""
    count = int(event["count"])
    begun = time.perf_counter()
    for number in range(count):
        context.step(lambda _scope, number=number: number, name="same")
    marks.append((begun, time.perf_counter()))
    context.wait(Duration.from_seconds(1))
    return count


parked: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()


@durable_execution
def asking(event: Any, context: DurableContext) -> None:
    """Steps, and then one callback after another; after each the function runs again from the top."""
    for number in range(int(event["count"])):
        context.step(lambda _scope, number=number: number, name="same")
    answered = 0
    while True:
        callback = context.create_callback(name=f"go-{answered}")
        parked.put((answered, callback.callback_id))
        callback.result()
        answered += 1


def run(runner: DurableFunctionTestRunner, count: int, name: str) -> None:
    """The runner looks every `poll_interval` seconds whether an execution has ended: a second unless it is told."""
    result = runner.run(input=f'{{"count": {count}}}', execution_name=name, execution_timeout=3000)
    assert result.status.name == "SUCCEEDED", result


def one(directory: str, count: int) -> dict[str, Any]:
    """One execution of `count` steps."""
    with DurableFunctionTestRunner(handler=steps, poll_interval=0.001) as runner:
        run(runner, WARM, "warm")
        began = time.perf_counter()
        run(runner, count, "run")
        seconds = time.perf_counter() - began
        return {"rate": count / seconds, "memory": peak_memory(), "durability": "none"}


def many(directory: str, count: int, length: int) -> dict[str, Any]:
    """Executions of `length` steps, one after another."""
    with DurableFunctionTestRunner(handler=steps, poll_interval=0.001) as runner:
        run(runner, WARM, "warm")
        began = time.perf_counter()
        for number in range(count):
            run(runner, length, f"run-{number}")
        return {"rate": count / (time.perf_counter() - began), "durability": "none"}


def resume(directory: str, count: int) -> dict[str, Any]:
    """The second invocation of a function that waited."""
    with DurableFunctionTestRunner(handler=recorded, poll_interval=0.001) as runner:
        run(runner, count, "run")
        seconds = marks[1][1] - marks[1][0]
        return {"rate": count / seconds, "seconds": seconds, "memory": peak_memory(), "durability": "none"}


def answer(directory: str, runs: int, events: int) -> dict[str, Any]:
    """Bring executions to a callback; then answer each, until its function waits for the next one."""
    with DurableFunctionTestRunner(handler=asking, poll_interval=0.001) as runner:
        callbacks = []
        for number in range(runs):
            runner.run_async(input=f'{{"count": {events - 2}}}', execution_name=f"run-{number}", execution_timeout=3000)
            callbacks.append(passed(0))
        spent = 0.0
        for callback in callbacks:
            began = time.perf_counter()
            runner.send_callback_success(callback, b"1")
            passed(1)
            spent += time.perf_counter() - began
        print(f'\n{{"ms": {1000 * spent / runs}, "durability": "none"}}')
        sys.stdout.flush()
        os._exit(0)  # the runner would wait for executions that wait


def passed(answered: int) -> str:
    """The callback that a function waits for after so many answers, once it does."""
    while (found := parked.get(timeout=300))[0] < answered:
        pass
    return found[1]


def first() -> None:
    """A first execution of three steps, and when it was finished."""
    with DurableFunctionTestRunner(handler=steps, poll_interval=0.001) as runner:
        run(runner, 3, "first")
        print(time.monotonic())
        print("none")
        sys.stdout.flush()
        os._exit(0)
