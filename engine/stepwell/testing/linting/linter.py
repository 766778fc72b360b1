"""From workflows, files and modules to findings: read, reach, check, silence."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ...composing import OneStep
from ...errors import InvalidInputError
from ...workflows import Workflow
from .allowing import Allows
from .finding import Finding, LintError
from .impure import impure
from .leaving import leaving
from .meaning import Resolver
from .ordering import set_order
from .project import Project, shown
from .reach import Code, Graph, Problem, reach, workflows_of
from .rules import RULES
from .scopes import Function, Module
from .sharing import Changes, sharing
from .yielding import yielding

__all__ = ["Report", "look_at"]


class Report(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        findings: in the order of files and lines.
        files: how many were asked for.
        workflows: names of the workflows in them.
    """

    findings: list[Finding]
    files: int
    workflows: list[str]


def look_at(targets: Sequence[Any]) -> Report:
    """Lint workflows, and files, folders and modules that are named.

    Raises:
        InvalidInputError: a target is none of these.
        LintError: it can't be found or read.
    """
    project = Project()
    resolver = Resolver(project)
    roots: list[tuple[Function, str]] = []
    whole: list[Module] = []
    for target in targets:
        if isinstance(target, OneStep):
            continue  # one step is all there is
        if isinstance(target, Workflow):
            roots.append((_function_of(target, project), target.name))
        elif isinstance(target, (str, Path)) and str(target):
            whole += [project.file(path) for path in project.targets(str(target))]
        else:
            raise InvalidInputError(f"lint takes workflows, paths and names of modules, got {target!r}")
    whole = list(dict.fromkeys(whole))
    found = [(module, list(workflows_of(module, resolver))) for module in whole]
    roots += [root for _, some in found for root in some]
    graph = reach(resolver, roots)
    findings = _silenced(_problems(graph), graph, [module for module, some in found if some], whole)
    names = [name for function, name in roots if _is_whole(function, graph)]
    return Report(findings, len(whole), list(dict.fromkeys(names)))


def _is_whole(function: Function, graph: Graph) -> bool:
    return function in graph.codes and not graph.codes[function].through


def _function_of(workflow: Workflow[..., Any], project: Project) -> Function:
    """Where a workflow stands in its file."""
    fn = inspect.unwrap(workflow.fn)
    code = getattr(fn, "__code__", None)
    path = Path(code.co_filename) if code is not None else None
    if code is None or path is None or not path.is_file() or path.suffix != ".py":
        where = f" ({path})" if path is not None else ""
        raise LintError(
            f"the source of workflow {workflow.name!r} can't be found{where}; lint reads files: put it into a module, "
            "or give lint() the path of the file"
        )
    module = project.file(path)
    for function in module.functions:
        first = min([function.node.lineno, *(one.lineno for one in function.decorators)])
        if first == code.co_firstlineno and getattr(function.node, "name", "") == code.co_name:
            return function
    raise LintError(
        f"{shown(path)}:{code.co_firstlineno} holds no function {code.co_name!r} any more: the file has changed since "
        "it was imported; start Python anew"
    )


def _problems(graph: Graph) -> Iterator[tuple[Code, Problem]]:
    changes = Changes(graph)
    for code in list(graph.codes.values()):
        known: set[tuple[int, int]] = set()
        for problem in (*impure(code, graph), *sharing(code, graph, changes)):
            known.add(_spot(problem.node))
            yield code, problem
        for problem in (*set_order(code, graph), *yielding(code, graph), *leaving(code, graph)):
            if problem.rule != "finally" or _spot(problem.node) not in known:
                yield code, problem


def _spot(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def _silenced(
    problems: Iterable[tuple[Code, Problem]], graph: Graph, with_workflows: list[Module], whole: list[Module]
) -> list[Finding]:
    """Findings, each once and without those that a comment allows; and what is wrong with such comments."""
    allows: dict[Module, Allows] = {}
    for module in (*whole, *(code.function.module for code in graph.codes.values())):
        if module not in allows:
            allows[module] = Allows(module)
    found: dict[tuple[str, int, int, str], Finding] = {}
    for code, problem in problems:
        owner = graph.resolver.owner(problem.node)
        module = owner.module if owner is not None else code.function.module
        finding = _finding(code, problem, module)
        if module not in allows:
            allows[module] = Allows(module)
        if not allows[module].silence(finding.rule, finding.line):
            found.setdefault((finding.file, finding.line, finding.column, finding.rule), finding)
    spans: dict[Module, list[range]] = {module: [] for module in allows}
    for code in graph.codes.values():
        spans[code.function.module].append(_span(code.function))
    for module in with_workflows:
        spans[module] += list(_outside_functions(module))
    for module, some in allows.items():
        for finding in some.findings(spans[module]):
            found.setdefault((finding.file, finding.line, finding.column, finding.rule), finding)
    return sorted(found.values(), key=lambda one: (one.file, one.line, one.column, one.rule))


def _finding(code: Code, problem: Problem, module: Module) -> Finding:
    line, offset = _spot(problem.node)
    text = module.source.splitlines()[line - 1] if line else ""
    column = len(text.encode()[:offset].decode(errors="replace")) + 1  # offsets are counted in bytes
    remedy = problem.remedy or RULES[problem.rule].remedy
    return Finding(problem.rule, shown(module.path), line, column, problem.reason, remedy, code.workflow, code.through)


def _span(function: Function) -> range:
    first = min([function.node.lineno, *(one.lineno for one in function.decorators)])
    return range(first, (function.node.end_lineno or first) + 1)


def _outside_functions(module: Module) -> Iterator[range]:
    """The lines that lie in no function."""
    inside = {line for function in module.functions for line in _span(function)}
    for line in range(1, module.source.count("\n") + 2):
        if line not in inside:
            yield range(line, line + 1)
