"""A sweep: a YAML file that names trials."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, MinLen
from pydantic import ValidationError
from pydantic.dataclasses import dataclass as checked

from wsolbench import documents, recipe, resources, shipped
from wsolbench.documents import Document
from wsolbench.errors import Collecting, InputError, Problem, nearest
from wsolbench.plugins import OPTIONS, explain
from wsolbench.trial import FIELDS, Trial
from wsolbench.words import PLACE

_BESIDE = {"seeds", "report", "resources"}  # keys of a file that no trial's settings hang on

MOST_TRIALS = 10_000
"""Of a sweep; more are a slip."""


@dataclass(frozen=True)
class Sweep:
    """The trials that a file names, and the table they fill, if it names one."""

    name: str
    trials: tuple[Trial, ...]
    report: str | None
    resources: Mapping[str, Any] = field(default_factory=dict)  # of a cluster, for every trial


@checked(frozen=True, kw_only=True, config=OPTIONS)
class _File:
    """What a sweep's file may hold."""

    base: dict[str, Any] = field(default_factory=dict)  # settings of every trial
    grid: dict[str, Annotated[list[Any], MinLen(1)]] = field(default_factory=dict)  # key -> values, crossed
    trials: list[dict[str, Any]] = field(default_factory=list)  # settings of one trial each
    seeds: Annotated[list[Annotated[int, Ge(0)]], MinLen(1)] | None = None  # each trial once for each
    report: str | None = None  # the table these trials fill
    resources: dict[str, Any] = field(default_factory=dict)  # what each job asks a cluster for


@dataclass(frozen=True)
class _Case:
    """The settings of one point of the grid or of one explicit trial, and where in the file they stand."""

    settings: dict[str, Any]
    where: tuple[str | int, ...]


def read(
    path: Path, overrides: Mapping[str, Any], weights_file: Path | None = None, seeds: Sequence[int] | None = None
) -> Sweep:
    """The sweep of a file.

    Args:
        path: with the keys `base`, `grid`, `trials`, `seeds`, `report` and `resources`.
        overrides: settings that win over the file's, in every trial that has them.
        weights_file: what the trials start from; wins too, unless the file asks for it by its digest.
        seeds: instead of the file's.

    Raises:
        InputError: with every mistake, its line and its key.
    """
    document = documents.read(path)
    problems: list[str] = []
    file = _checked(document, problems)
    _refuse_too_many(document, file, () if "seed" in overrides else seeds or file.seeds or ())
    problems += [*_report_problems(document, file), *_resource_problems(document, file)]
    overrides = {**_weights(file, weights_file), **overrides}
    cases: list[tuple[_Case, dict[str, Any]]] = []
    trials: dict[Trial, None] = {}  # in the file's order, each once
    for case in _cases(file):
        with _located(problems, document, case, overrides):
            cases.append((case, _settings(file.base, case, overrides)))
    for case, settings in cases:
        with _located(problems, document, case, overrides):
            for seed in _seeds(settings, seeds or file.seeds):
                trials[recipe.complete({**settings, **seed}, weights_file)] = None
    problems += _unused(path, [settings for _, settings in cases], overrides)
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return Sweep(path.stem, tuple(trials), file.report, file.resources)


def _weights(file: _File, weights_file: Path | None) -> dict[str, str]:
    """The override that a file of weights is; none where the sweep asks for it by its digest, beside others perhaps."""
    if weights_file is None:
        return {}
    asked = [*file.grid.get("weights", ()), *(settings.get("weights") for settings in (file.base, *file.trials))]
    digest = recipe.digest(weights_file)
    return {} if digest in asked else {"weights": digest}


def _unused(path: Path, cases: Sequence[Mapping[str, Any]], overrides: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each override that no trial understands."""
    used = {key for settings in cases for key in settings}
    for key in [key for key in overrides if cases and key not in used]:
        known = {name for settings in cases for name in recipe.accepts(settings)}
        yield f"no trial of {path} has a field or option {key!r}{nearest(key, known)}"


def _report_problems(document: Document, file: _File) -> list[str]:
    """Told before the first trial, not after the last."""
    problems: list[str] = []
    with Collecting(problems):
        if file.report is not None:
            shipped.find("reports", file.report)
    return [f"{document.where('report')}: {problem}" for problem in problems]


def _resource_problems(document: Document, file: _File) -> list[str]:
    problems: list[str] = []
    with Collecting(problems):
        resources.check(file.resources)
    return [f"{document.where('resources', getattr(problem, 'key', ''))}: {problem}" for problem in problems]


def _checked(document: Document, problems: list[str]) -> _File:
    """What the file says; a wrong key that no trial's settings hang on is left out, and a problem more."""
    if not isinstance(document.data, dict):
        raise InputError(
            f"{document.where()}: a sweep is a mapping with base, grid, trials, seeds, report and resources"
        )
    try:
        file = _File(**document.data)
    except ValidationError as error:
        unknown = "a sweep has no key {}; it has: base, grid, trials, seeds, report, resources"
        places = (document.where(*detail["loc"]) for detail in error.errors())
        problems += map(": ".join, zip(places, map(_of_file, explain(error, unknown)), strict=True))
        if not (wrong := {detail["loc"][0] for detail in error.errors()}) <= _BESIDE:
            raise InputError(*problems) from None
        file = _File(**{key: value for key, value in document.data.items() if key not in wrong})
    if not file.grid and not file.trials:
        raise InputError(*problems, f"{document.where()}: a sweep needs a grid, a list of trials, or both")
    return file


def _refuse_too_many(document: Document, file: _File, seeds: Sequence[int]) -> None:
    """Count the trials before any is made."""
    points = math.prod(map(len, file.grid.values())) if file.grid else 0
    cases = [(points, {**file.base, **file.grid}), *((1, {**file.base, **settings}) for settings in file.trials)]
    if (count := sum(many * (1 if "seed" in of else len(seeds) or 1) for many, of in cases)) > MOST_TRIALS:
        said = f"{count:,}" if count < 10**9 else f"about 10^{math.log10(count):.0f}"
        where = document.where("grid" if file.grid else "trials")
        raise InputError(f"{where}: {said} trials, more than {MOST_TRIALS:,}; split the sweep")


def _cases(file: _File) -> Iterator[_Case]:
    for values in itertools.product(*file.grid.values()) if file.grid else ():
        yield _Case(dict(zip(file.grid, values, strict=True)), ("grid",))
    for index, settings in enumerate(file.trials):
        yield _Case(settings, ("trials", index))


def _settings(base: Mapping[str, Any], case: _Case, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A case's settings with the overrides that a trial of its kinds has."""
    settings = {**base, **case.settings}
    if not overrides:
        return settings
    fields = {key: value for key, value in overrides.items() if key in FIELDS}
    known = recipe.accepts({**settings, **fields})
    return {**settings, **{key: value for key, value in overrides.items() if key in known}}


def _seeds(settings: Mapping[str, Any], seeds: Sequence[int] | None) -> list[dict[str, int]]:
    """The axis of seeds, unless one is given."""
    return [{}] if seeds is None or "seed" in settings else [{"seed": seed} for seed in seeds]


@contextmanager
def _located(problems: list[str], document: Document, case: _Case, overrides: Mapping[str, Any]) -> Iterator[None]:
    """Collect the problems of a case, each with its line unless an override is to blame."""
    try:
        yield
    except InputError as error:
        for problem in error.problems:
            key = problem.key if isinstance(problem, Problem) else ""
            where = case.where if key in case.settings else ("base",)
            problems.append(problem if key in overrides else f"{document.where(*where, key)}: {_of_file(problem)}")


def _of_file(problem: str) -> str:
    """A problem of the file; of what only the command line says, where to say it instead."""
    key = problem.key if isinstance(problem, Problem) else ""
    if key not in PLACE:
        return problem
    if key == "weights":
        return f"{problem}; a file is given on the command line: weights=FILE" if "sha256" in problem else problem
    return f"{key} says where a trial runs, not what it is: give {key}={PLACE[key]} on the command line"
