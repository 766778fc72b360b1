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
from .chronicle import traced
from .determinism import NotDeterministicError, assert_deterministic
from .drawing import DrawnRun, histories
from .ending import DeadEndError, assert_ends
from .environments import InlineExecutor, SeededEntropy, VirtualClock
from .explaining import explain_difference
from .fakes import takes
from .faults import Fault, FaultStore, Injected, StoreCall
from .fitting import check_history
from .history_files import HistoryFile
from .linting import Finding, LintError, lint
from .misfits import ChangedInputs, Misfit, Remedy
from .replaying import Replay, prefixes, replay
from .simulating import REAL, Call, Simulation, SimulationError, simulate

__all__ = [
    "REAL",
    "Answer",
    "Call",
    "ChangedInputs",
    "DeadEndError",
    "DrawnRun",
    "Fault",
    "FaultStore",
    "Finding",
    "HistoryFile",
    "Injected",
    "InlineExecutor",
    "LintError",
    "Misfit",
    "NotDeterministicError",
    "Remedy",
    "Replay",
    "SeededEntropy",
    "Simulation",
    "SimulationError",
    "StoreCall",
    "VirtualClock",
    "WrongAnswerError",
    "assert_deterministic",
    "assert_ends",
    "cancel",
    "cancelled",
    "check_history",
    "explain_difference",
    "fired",
    "histories",
    "lint",
    "patched",
    "pause",
    "prefixes",
    "raised",
    "received",
    "replay",
    "returned",
    "simulate",
    "takes",
    "traced",
    "unpause",
]
