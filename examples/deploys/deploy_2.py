"""Deploy 2: addresses are checked first. Those who subscribed before it go on without: `Patched` tells them apart."""

from __future__ import annotations

from magazine import PRICE, check_address, collect, issue, open_engine, send

from stepwell import Flow, Patched, Step, Suspend, workflow


@workflow
def subscription(reader: str) -> Flow[str]:
    address = reader
    if (yield from Patched("check-address")):
        address = yield from Step(check_address, reader)
    for _ in range(3):
        month = yield from Suspend(issue)
        yield from collect(reader, month, PRICE)
        yield Step(send, address, month)
    return f"{reader} has had three issues"


offer = subscription
engine = open_engine(subscription)
