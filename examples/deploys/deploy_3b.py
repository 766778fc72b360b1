"""Deploy 3b, a mistake that is taken back: the price is raised in place, also for those who have paid."""

from __future__ import annotations

from deploy_2 import subscription
from magazine import check_address, collect, issue, open_engine, send

from stepwell import Flow, Step, Suspend, workflow

PRICE = 600


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
