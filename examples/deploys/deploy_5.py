"""Deploy 5: nobody is left on version 1, so it goes."""

from __future__ import annotations

from deploy_3 import subscription_2
from magazine import open_engine

offer = subscription_2
engine = open_engine(subscription_2)
