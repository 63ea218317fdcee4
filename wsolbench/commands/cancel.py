"""`cancel`: ends the jobs of trials."""

import os
import signal
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from wsolbench import claims, cluster, trial, watch
from wsolbench.attempts import here, running_here
from wsolbench.commands import _targets
from wsolbench.console import Pairs, Results, app, confirm, say
from wsolbench.store import Store
from wsolbench.watch import AT_WORK


@app.command()
def cancel(
    target: Annotated[str, typer.Argument(help=_targets.HELP)],
    pairs: Pairs = None,
    results: Results = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="only list them")] = False,
) -> None:
    """End the jobs of a sweep or a trial, in the queue and on this machine; checkpoints stay.

    A sweep that runs on this machine stops whole where all trials that it holds are asked for, with the words that
    began it.
    """
    found = Store(results)
    specs = _targets.trials(target, pairs, found)
    standings = watch.standings(found, specs, _targets.queue(found, specs))
    jobs = {name: s for name, s in standings.items() if s.state in AT_WORK and s.job}
    here_only = [name for name in specs if name not in jobs]
    launchers = _launchers(found, here_only)
    processes = launchers | _processes(found, here_only)
    for name, spec in specs.items():
        if name in jobs or name in processes:
            what = jobs[name].job if name in jobs else f"process {processes[name]}"
            print(f"{name}  {standings[name].state:10}  {what}  {trial.words(spec)}")
    say(*(f"process {number} runs a sweep: it stops, and starts no more trials" for number in {*launchers.values()}))
    left = [name for name in here_only if standings[name].state in AT_WORK and name not in processes]
    say(*(f"left alone: {name} {standings[name].state} {standings[name].note}" for name in left))
    if left:
        say("a process goes on that runs other trials too, or on another machine: cancel its whole sweep, there")
    if not jobs and not processes:
        say("nothing of it is at work" if not left else "nothing to cancel here")
        return
    if dry_run:
        return
    confirm(f"cancel {len(jobs) + len(processes)} trials?", yes=yes)
    cluster.cancel(jobs)
    for process in dict.fromkeys([*launchers.values(), *processes.values()]):  # or a launcher would start the next
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
    say(f"cancelled {len(jobs) + len(processes)}", *_next(jobs, processes))


def _next(jobs: Collection[str], processes: Collection[str]) -> Iterator[str]:
    """How what was cancelled goes on."""
    if jobs:
        yield "`wsolbench sweep --cluster slurm --retry cancelled` submits cancelled jobs again"
    if processes:
        yield "processes stop between two steps; the next `wsolbench sweep` or `run` goes on from their checkpoints"


def _launchers(found: Store, ids: Iterable[str]) -> dict[str, int]:
    """The processes of this machine whose sweeps hold trials, by trial; not those that hold others than these too."""
    held: dict[int, set[str]] = {}
    for name in found.ids():
        claim = claims.newest(found, name)
        said = {} if claim is None or claim.end() else claim.said()
        if said.get("cluster") != "slurm" and said.get("host") == here()["host"] and running_here(said):
            held.setdefault(int(said["pid"]), set()).add(name)
    return {name: process for process, names in held.items() if names <= {*ids} for name in names}


def _processes(found: Store, ids: Iterable[str]) -> dict[str, int]:
    """The processes of this machine that run trials, by trial."""
    running = {}
    for name in ids:
        for attempt in found.attempts(name)[-1:]:
            meta = attempt.meta()
            if not attempt.exit() and meta.get("host") == here()["host"] and running_here(meta):
                running[name] = int(meta["pid"])
    return running
