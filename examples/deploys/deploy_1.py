"""Deploy 1: a reader gets three issues, and pays for each when it is out."""

from __future__ import annotations

from magazine import PRICE, collect, issue, open_engine, send

from stepwell import Flow, Step, Suspend, workflow


@workflow
def subscription(reader: str) -> Flow[str]:
    for _ in range(3):
        month = yield from Suspend(issue)
        yield from collect(reader, month, PRICE)
        yield Step(send, reader, month)
    return f"{reader} has had three issues"


offer = subscription  # what who subscribes today gets
engine = open_engine(subscription)
