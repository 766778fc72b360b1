"""Schedules: workflows that are started again and again, at the slots of a cron expression or a fixed time apart.

    nightly = Schedule("nightly", report, cron="0 3 * * *", tz="Europe/Berlin")
    engine = Engine("sqlite:///runs.db", workflows=[report, nightly])
    ensure(engine)
    Worker(engine).run()

A schedule is a durable run of its own. Each slot's run id follows from the schedule's name and the slot's instant, so
that each is started once, however many processes look. Floor 5.
"""

from .keeping import Ensured, ScheduleRecord, ensure, records, schedules_of, trigger
from .plan import Missed, Overlap, Plan
from .schedule import CHANGED, PREFIX, TAG, Schedule, upcoming

__all__ = [
    "CHANGED",
    "PREFIX",
    "TAG",
    "Ensured",
    "Missed",
    "Overlap",
    "Plan",
    "Schedule",
    "ScheduleRecord",
    "ensure",
    "records",
    "schedules_of",
    "trigger",
    "upcoming",
]
