"""The testing kit: fake histories and simulated runs. Nothing here needs a server, a file, a thread or real time."""

from .answers import (
    Answer,
    WrongAnswerError,
    cancel,
    cancelled,
    fired,
    patched,
    pause,
    raised,
    received,
    returned,
    unpause,
)
from .replaying import Replay, replay

__all__ = [
    "Answer",
    "Replay",
    "WrongAnswerError",
    "cancel",
    "cancelled",
    "fired",
    "patched",
    "pause",
    "raised",
    "received",
    "replay",
    "returned",
    "unpause",
]
