"""Deploy 3: the three issues are paid for in advance, and cost less. That is version 2; version 1 stays beside it."""

from __future__ import annotations

from deploy_2 import subscription  # in a file of your own the function just stays where it is
from magazine import PRICE, check_address, collect, issue, open_engine, send

from stepwell import Flow, Step, Suspend, workflow


@workflow(name="subscription", version="2")
def subscription_2(reader: str) -> Flow[str]:
    address = yield from Step(check_address, reader)
    yield from collect(reader, "three issues", 3 * PRICE - 300)
    for _ in range(3):
        month = yield from Suspend(issue)
        yield Step(send, address, month)
    return f"{reader} has had three issues"


offer = subscription_2
engine = open_engine(subscription, subscription_2)
