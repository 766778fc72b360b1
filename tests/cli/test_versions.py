"""`list` for those who change running workflows: by version, open ones, those without a patch."""

from __future__ import annotations

import importlib
import json

import pytest

from stepwell import Engine

AT = ("--store", "sqlite:///runs.db")

OLD = """
from stepwell import Engine, Flow, Suspend, workflow

@workflow
def order() -> Flow[None]:
    yield Suspend("paid")
    yield Suspend("sent")

@workflow(name="order", version="2")
def order_2() -> Flow[None]:
    yield Suspend("paid")

engine = Engine("sqlite:///runs.db", workflows=[order, order_2])
"""

NEW = OLD.replace("Flow, Suspend", "Flow, Patched, Suspend").replace(
    '    yield Suspend("sent")', '    yield Patched("tax")\n    yield Suspend("sent")'
)


@pytest.fixture
def apps(stepwell, write_app):
    """The app of before and that of after the change; runs of both versions, one of them behind the change."""
    old, new = (f"{write_app(source)}:engine" for source in (OLD, NEW))
    for run_id in ("behind", "before"):
        stepwell("--app", old, "start", "order", "--run-id", f"new-{run_id}")  # of the version that is registered last
    module = importlib.import_module(old.partition(":")[0])
    with Engine("sqlite:///runs.db", [module.order]) as engine:
        for run_id in ("behind", "before"):
            engine.start(module.order, run_id=run_id)
        engine.resume("behind", "paid")
    return old, new


def ids(done):
    assert 0 == done.code, done.err
    return sorted(one["runId"] for one in json.loads(done.out))


def test_runs_of_a_version_are_listed(stepwell, apps):
    assert ["before", "behind"] == ids(stepwell(*AT, "list", "--json", "--version", "1"))
    assert ["new-before", "new-behind"] == ids(stepwell(*AT, "list", "--json", "--version", "2", "--open"))
    stepwell(*AT, "cancel", "before", "--force")
    assert ["behind"] == ids(stepwell(*AT, "list", "--json", "--version", "1", "--open"))


def test_runs_without_a_patch_are_listed_by_their_code_or_by_their_histories(stepwell, apps):
    _, new = apps
    assert ["behind"] == ids(stepwell("--app", new, "list", "--json", "--without-patch", "tax"))
    everything = ["before", "behind", "new-before", "new-behind"]
    assert everything == ids(stepwell(*AT, "list", "--json", "--without-patch", "tax"))
    assert everything == ids(stepwell(*AT, "list", "--json", "--without-patch", "tax", "--workflow", "order"))
    done = stepwell(*AT, "list", "--without-patch", "tax", "--workflow", "other")
    assert (0, "no runs that match\n") == (done.code, done.out)


@pytest.mark.parametrize("more", [["--status", "failed"], ["--version", "1"], ["--tag", "a"], ["--blocked"]])
def test_a_patch_is_asked_about_for_all_open_runs(stepwell, apps, more):
    done = stepwell(*AT, "list", "--without-patch", "tax", *more)
    assert (2, "") == (done.code, done.out)
    assert "--without-patch goes with --workflow alone" in done.err


def test_what_is_no_change_id_is_refused(stepwell, apps):
    done = stepwell(*AT, "list", "--without-patch", "")
    assert 0 != done.code
    assert "change id" in done.err
    assert "Traceback" not in done.err
