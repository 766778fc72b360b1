"""Errors that say that something has grown too far: a budget, a history, a line of children. Floor 0."""

from __future__ import annotations

from .errors import StepwellError, Thrown

__all__ = ["BudgetExceededError", "CycleDetectedError", "DepthExceededError", "HistoryLimitError"]


class BudgetExceededError(StepwellError, Thrown):
    """A run has spent more than its budget; thrown at the `Spend` that passed it, and at each that follows.

    Attributes:
        spent: what was spent, this charge included.
        budget: what might be spent.
        at: path of the command in its run.
        seq: position of the recorded charge, -1 when it was refused without being recorded.
    """

    code = "BUDGET_EXCEEDED"
    spent: float = 0
    budget: float = 0


class CycleDetectedError(StepwellError):
    """A workflow would become its own descendant; thrown at the `Child`, before anything is started."""

    code = "CYCLE_DETECTED"


class DepthExceededError(StepwellError):
    """Children of children are nested too deep; thrown at the `Child`, before anything is started."""

    code = "DEPTH_EXCEEDED"


class HistoryLimitError(StepwellError):
    """A history is as long as it may be: the run is blocked before anything more is performed.

    Attributes:
        run_id: the run.
        events, size: what its history holds, and its bytes.
    """

    code = "HISTORY_LIMIT"
    run_id: str = ""
    events: int = 0
    size: int = 0
