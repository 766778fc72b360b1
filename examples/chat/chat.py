"""A chat with a language model that answers word by word.

The model is a fake: an async generator that takes its time. Its words are recorded (`record_chunks=True`), so a reader
in any process sees them as they come, and one that comes late sees them all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from stepwell import Emit, Engine, Flow, RetryPolicy, Step, Stream, workflow

PAUSE = float(os.environ.get("CHAT_PAUSE", "0.03"))  # seconds between two words

SOURCES = {
    "store": "A store keeps histories: a file, SQLite, or what you write yourself.",
    "replay": "On replay a workflow is answered from its history, and nothing runs twice.",
    "stream": "A stream hands on what it yields while it runs.",
}


def search(question: str) -> list[str]:
    """Find what the model should know."""
    return [text for word, text in SOURCES.items() if word in question.lower()]


async def complete(question: str, sources: list[str]) -> AsyncIterator[str]:
    """Stand in for a language model."""
    text = " ".join(sources) or f"I know nothing about “{question}”, but I can talk about {', '.join(SOURCES)}."
    for word in text.split():
        await asyncio.sleep(PAUSE)
        yield f"{word} "


@workflow
def chat(question: str) -> Flow[str]:
    sources = yield from Step(search, question)
    yield Emit(len(sources), topic="sources")
    answer = Stream(complete, question, sources).options(
        collect="".join, record_chunks=True, retry=RetryPolicy(3), timeout=60
    )
    return (yield from answer).strip()


# Nothing is opened before the engine is used. `stepwell --app chat:engine` works with it too.
engine = Engine(os.environ.get("STEPWELL_STORE", "sqlite:///chat.db"), workflows=[chat])
