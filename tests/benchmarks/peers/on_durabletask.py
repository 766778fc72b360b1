"""Microsoft's durabletask with its backend in memory, over gRPC on the loopback interface."""

# It is installed in an environment of its own, not where types are checked.
# pyright: reportMissingImports=false, reportMissingModuleSource=false

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import time
from concurrent import futures
from typing import Any

import grpc
from durabletask import client, worker
from durabletask.internal import orchestrator_service_pb2_grpc as stubs
from durabletask.testing import in_memory_backend
from tests.benchmarks.probes import peak_memory

__all__ = ["answer", "drain", "first", "many", "one", "resume"]

WARM = 10


class Backend(in_memory_backend.InMemoryOrchestrationBackend):  # type: ignore[misc]  # known only where it runs
    """The backend that is shipped listens on all interfaces; this one on the loopback alone."""

    def start(self) -> None:
        self._shutdown_event.clear()
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=10))
        stubs.add_TaskHubSidecarServiceServicer_to_server(self, self._server)
        assert self._server.add_insecure_port(f"127.0.0.1:{self._port}") == self._port
        self._server.start()


def same(_context: Any, number: int) -> int:
    return number


def steps(context: Any, count: int) -> Any:
    for number in range(count):
        yield context.call_activity(same, input=number)
    return count


marks: dict[str, float] = {}


def recorded(context: Any, count: int) -> Any:
    """Each turn runs it from the top; the last one answers all steps from the history."""
    marks["begun"] = time.perf_counter()
    for number in range(count):
        yield context.call_activity(same, input=number)
    marks["ended"] = time.perf_counter()
    return count


parked: queue.SimpleQueue[int] = queue.SimpleQueue()


def asking(context: Any, count: int) -> Any:
    """Steps, and then one question after another; each turn passes all earlier ones again."""
    for number in range(count):
        yield context.call_activity(same, input=number)
    answered = 0
    while True:
        parked.put(answered)
        yield context.wait_for_external_event("go")
        answered += 1


class Hub:
    """Backend, worker and client in one process, as its tests are run."""

    def __init__(self) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        self.backend = Backend(max_history_size=10_000_000, port=port)
        self.backend.start()
        self.worker = worker.TaskHubGrpcWorker(host_address=f"127.0.0.1:{port}")
        self.worker.add_activity(same)
        self.worker.add_orchestrator(steps)
        self.worker.add_orchestrator(recorded)
        self.worker.add_orchestrator(asking)
        self.client = client.TaskHubGrpcClient(host_address=f"127.0.0.1:{port}")

        for name in ("durabletask-worker", "durabletask-client"):
            logging.getLogger(name).setLevel(logging.ERROR)  # two lines for each run and turn

    def submit(self, count: int, orchestrator: Any = steps) -> str:
        return str(self.client.schedule_new_orchestration(orchestrator, input=count))

    def wait(self, run: str) -> None:
        state = self.client.wait_for_orchestration_completion(run, timeout=3000)
        assert state is not None
        assert state.runtime_status.name == "COMPLETED", state


def one(directory: str, count: int) -> dict[str, Any]:
    """One orchestration of `count` activities."""
    hub = Hub()
    hub.worker.start()
    hub.wait(hub.submit(WARM))
    began = time.perf_counter()
    hub.wait(hub.submit(count))
    seconds = time.perf_counter() - began
    return {"rate": count / seconds, "memory": peak_memory(), "durability": "none"}


def many(directory: str, count: int, length: int) -> dict[str, Any]:
    """Orchestrations of `length` activities, one after another."""
    hub = Hub()
    hub.worker.start()
    hub.wait(hub.submit(WARM))
    began = time.perf_counter()
    for _ in range(count):
        hub.wait(hub.submit(length))
    return {"rate": count / (time.perf_counter() - began), "durability": "none"}


def drain(directory: str, count: int, length: int) -> dict[str, Any]:
    """All are submitted, then the worker starts."""
    hub = Hub()
    runs = [hub.submit(length) for _ in range(count)]
    began = time.perf_counter()
    hub.worker.start()
    for run in runs:
        hub.wait(run)
    return {"rate": count / (time.perf_counter() - began), "durability": "none"}


def resume(directory: str, count: int) -> dict[str, Any]:
    """The last turn of an orchestration: the replay of all its activities but one."""
    hub = Hub()
    hub.worker.start()
    hub.wait(hub.submit(count, recorded))
    seconds = marks["ended"] - marks["begun"]
    return {"rate": count / seconds, "seconds": seconds, "memory": peak_memory(), "durability": "none"}


def answer(directory: str, runs: int, events: int) -> dict[str, Any]:
    """Bring orchestrations to a wait; then raise an event for each, until its function waits again."""
    hub = Hub()
    hub.worker.start()
    names = []
    for _ in range(runs):
        names.append(hub.submit(events - 2, asking))
        passed(0)
    spent = 0.0
    for name in names:
        began = time.perf_counter()
        hub.client.raise_orchestration_event(name, "go", data=1)
        passed(1)
        spent += time.perf_counter() - began
    return {"ms": 1000 * spent / runs, "durability": "none"}


def passed(answered: int) -> None:
    """Wait until a function has come to the question after so many answers."""
    while parked.get(timeout=300) < answered:
        pass


def first() -> None:
    """A first orchestration of three activities, and when it was finished."""
    hub = Hub()
    hub.worker.start()
    hub.wait(hub.submit(3))
    print(time.monotonic())
    print("none")
    sys.stdout.flush()
    os._exit(0)
