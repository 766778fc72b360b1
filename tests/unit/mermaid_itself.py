"""Mermaid itself reads our sequence diagrams, and finds what our grammar finds in them.

Needs node, and mermaid and jsdom in `node_modules` of the directory that `STEPWELL_MERMAID` names; CI installs them and
runs this file by its name.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from stepwell.mermaid import sequence_diagram
from stepwell.testing import replay

from .mermaid_grammar import parse
from .test_mermaid import HISTORY, NASTY, hostile, order

MERMAID = os.environ["STEPWELL_MERMAID"]
READER = """
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import fs from 'node:fs';
const where = createRequire(process.argv[2] + '/');
const { JSDOM } = where('jsdom');
const dom = new JSDOM('<!doctype html><body></body>');
globalThis.window = dom.window; globalThis.document = dom.window.document;
const entry = process.argv[2] + '/node_modules/mermaid/dist/mermaid.core.mjs';
const mermaid = (await import(pathToFileURL(entry))).default;
const found = [];
for (const text of JSON.parse(fs.readFileSync(0, 'utf8'))) {
  await mermaid.parse(text);
  const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
  found.push({
    actors: [...db.getActors().entries()].map(([name, actor]) => [name, actor.description]),
    messages: db.getMessages().map((m) => [m.from, m.type, m.to, m.message]),
  });
}
console.log(JSON.stringify(found));
"""
ARROW_TYPES = {"->>": 0, "-->>": 1, "note": 2, "--x": 4}


def test_mermaid_itself_reads_the_same(tmp_path: Path) -> None:
    diagrams = [sequence_diagram(hostile(text), text) for text in NASTY]
    diagrams.append(sequence_diagram(replay(order, "tea", history=HISTORY).events, "o1"))
    script = tmp_path / "read.mjs"
    script.write_text(READER, "utf-8")
    done = subprocess.run(
        ["node", str(script), MERMAID],
        input=json.dumps(diagrams),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert 0 == done.returncode, done.stderr
    for diagram, found in zip(diagrams, json.loads(done.stdout), strict=True):
        people, arrows = parse(diagram)
        assert [[name, _plain(text)] for name, text in people.items()] == [
            [name, _plain(_entities(text))] for name, text in found["actors"]
        ]
        assert [[d.source, ARROW_TYPES[d.arrow], d.target, _plain(d.text)] for d in arrows] == [
            [source, kind, target, _plain(_entities(text))] for source, kind, target, text in found["messages"]
        ]


def _entities(text: str) -> str:
    """Mermaid keeps an entity under marks of its own until it draws it."""
    parts = text.split("ﬂ°°")
    return parts[0] + "".join(chr(int(p.partition("¶ß")[0])) + p.partition("¶ß")[2] for p in parts[1:])


def _plain(text: str) -> str:
    return text.strip()
