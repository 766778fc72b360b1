"""Deploy 4: nobody is left whose address was not checked, so the question is taken out of version 1."""

from __future__ import annotations

from deploy_3 import subscription_2
from magazine import PRICE, check_address, collect, issue, open_engine, send

from stepwell import Flow, Step, Suspend, workflow


@workflow
def subscription(reader: str) -> Flow[str]:
    address = yield from Step(check_address, reader)
    for _ in range(3):
        month = yield from Suspend(issue)
        yield from collect(reader, month, PRICE)
        yield Step(send, address, month)
    return f"{reader} has had three issues"


offer = subscription
engine = open_engine(subscription, subscription_2)
