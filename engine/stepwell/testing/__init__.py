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
from .environments import InlineExecutor, SeededEntropy, VirtualClock
from .linting import Finding, LintError, lint
from .replaying import Replay, replay
from .simulating import REAL, Call, Simulation, SimulationError, simulate

__all__ = [
    "REAL",
    "Answer",
    "Call",
    "Finding",
    "InlineExecutor",
    "LintError",
    "Replay",
    "SeededEntropy",
    "Simulation",
    "SimulationError",
    "VirtualClock",
    "WrongAnswerError",
    "cancel",
    "cancelled",
    "fired",
    "lint",
    "patched",
    "pause",
    "raised",
    "received",
    "replay",
    "returned",
    "simulate",
    "unpause",
]
