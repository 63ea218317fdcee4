"""`cancel`: ends the jobs of trials."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from wsolbench import cluster, trial, watch
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
    """End the jobs of a sweep or a trial, in the queue and on this machine; checkpoints stay."""
    found = Store(results)
    ids = _targets.ids(target, pairs, found)
    standings = watch.standings(found, ids, _targets.queue(found, ids))
    jobs = {name: s for name, s in standings.items() if s.state in AT_WORK and s.job}
    processes = _processes(found, [name for name in ids if name not in jobs])
    for name in ids:
        if name in jobs or name in processes:
            what = jobs[name].job if name in jobs else f"process {processes[name]}"
            print(f"{name}  {standings[name].state:10}  {what}  {trial.words(found.spec(name))}")
    if not jobs and not processes:
        say("nothing of it is at work")
        return
    if dry_run:
        return
    confirm(f"cancel {len(jobs) + len(processes)} trials?", yes=yes)
    cluster.cancel(jobs)
    for process in set(processes.values()):
        os.kill(process, signal.SIGTERM)
    say(f"cancelled {len(jobs) + len(processes)}; `wsolbench sweep --retry cancelled` submits cancelled jobs again")


def _processes(found: Store, ids: Iterable[str]) -> dict[str, int]:
    """The processes of this machine that run trials, by trial."""
    running = {}
    for name in ids:
        for attempt in found.attempts(name)[-1:]:
            meta = attempt.meta()
            if not attempt.exit() and meta.get("host") == here()["host"] and running_here(meta):
                running[name] = int(meta["pid"])
    return running
