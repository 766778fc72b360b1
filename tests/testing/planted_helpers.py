"""What workflows of another module call."""

from __future__ import annotations

import time


def is_night() -> bool:
    return time.time() < 0


class Clerk:
    @property
    def sleeps(self) -> bool:
        return self._asks()

    @staticmethod
    def _asks() -> bool:
        return time.time() < 0
