"""Workflows that look at the world by themselves, and come to the same today: each in another way."""

from __future__ import annotations

import os
from pathlib import Path
from random import SystemRandom

from stepwell import Flow, Step, workflow

from . import planted_helpers
from .planted_helpers import Clerk, is_night

dice = SystemRandom()
clerk = Clerk()


def tell(text: str) -> None:
    raise AssertionError("nothing is performed")


@workflow
def reads_the_environment(text: str) -> Flow[None]:
    yield Step(tell, text if os.environ.get("STEPWELL_NOWHERE") is None else "never")


@workflow
def looks_into_the_environment(text: str) -> Flow[None]:
    yield Step(tell, text if "STEPWELL_NOWHERE" not in os.environ else "never")


@workflow
def opens_a_file(text: str) -> Flow[None]:
    with open(__file__, encoding="utf-8") as file:  # noqa: PTH123 - that is the mistake
        line = file.readline()
    yield Step(tell, text if line else "never")


@workflow
def reads_a_path(text: str) -> Flow[None]:
    yield Step(tell, text if Path(__file__).exists() else "never")


@workflow
def throws_dice(text: str) -> Flow[None]:
    yield Step(tell, text if dice.random() < 2 else "never")


@workflow
def asks_a_helper(text: str) -> Flow[None]:
    yield Step(tell, "never" if is_night() else text)


@workflow
def asks_a_module(text: str) -> Flow[None]:
    yield Step(tell, "never" if planted_helpers.is_night() else text)


@workflow
def asks_an_object(text: str) -> Flow[None]:
    yield Step(tell, "never" if clerk.sleeps else text)
