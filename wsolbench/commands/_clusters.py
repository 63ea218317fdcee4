"""What `sweep` does on a SLURM cluster: show, ask, submit, and wait if that is wanted."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wsolbench import cluster, recommended, resources, submission
from wsolbench.cluster import Plan, Wish
from wsolbench.console import FAILED, INCOMPLETE, INTERRUPTED, confirm, say
from wsolbench.place import Place
from wsolbench.stop import unheard
from wsolbench.submission import Outcome
from wsolbench.trial import words

if TYPE_CHECKING:
    from wsolbench.sweep import Sweep


def planned(sweep: "Sweep", place: Place, wish: Wish) -> Plan:
    """What is to do for a sweep; `InputError` with every wrong resource."""
    asked = {
        trial.id: resources.resources(trial, place, recommended.resources_of(trial), sweep.resources, wish.asked)
        for trial in sweep.trials
    }
    trials = {trial.id: trial for trial in sweep.trials}
    return Plan(trials, place, asked, wish.retry or ("lost",), insist=wish.retry is not None)


def show(plan: Plan, most: int | None) -> None:
    """Print the header of each array's script, and a line for each trial."""
    for asked, trial_ids in plan.groups().items():
        throttle = most or len(trial_ids), None
        script = submission.job_script(Path("FOLDER"), "BATCH", asked, len(trial_ids), throttle)
        print("\n".join(line for line in script.splitlines() if line.strip()))
        for trial_id in trial_ids:
            print(f"  {trial_id}  {words(plan.trials[trial_id].spec())}")


def run(plan: Plan, wish: Wish, before: Callable[[], None]) -> tuple[int, bool]:
    """Submit what is missing, and wait for it if asked; returns the exit code, and whether all has ended.

    Args:
        plan: looked at already.
        wish: how.
        before: is called once the user has agreed.
    """
    plan.store.folder.mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    with _stoppable() as stop:
        if missing := plan.wanted():
            say(cost(plan))
            confirm(f"submit {len(missing)} trials?", yes=wish.yes)
            before()
            if wish.snapshot:
                cluster.run_a_copy(plan)
            for trial in plan.trials.values():
                plan.store.add(trial)
            outcome = cluster.submit(plan, wish.most, stop)
            say(outcome.told())
        if wish.wait and not stop():
            plan.insist = False  # once is what was asked for
            cluster.wait(plan, outcome, wish.most, say, stop)
        if stop():
            say("stopped; submitted jobs go on: `wsolbench status` shows them, `wsolbench cancel` ends them")
            return INTERRUPTED, False
    if not wish.wait:
        return INCOMPLETE if outcome.left else 0, False
    bad = {trial_id: s for trial_id, s in plan.standings.items() if s.state != "done"}
    for trial_id, standing in bad.items():
        say(f"{standing.state}: {trial_id}: {standing.note}", f"  log: wsolbench logs {trial_id}")
    return FAILED if bad else 0, True


def cost(plan: Plan) -> str:
    """What the missing trials may use."""
    wanted = plan.wanted()
    hours = sum(one.resources.timeout_min for one in wanted) / resources.HOUR
    gpus = sum(one.resources.gpu_hours for one in wanted)
    each = "; ".join(f"{len(trials)} x ({asked})" for asked, trials in plan.groups().items())
    return f"to submit: {len(wanted)} trials, at most {gpus:.1f} GPU hours and {hours:.1f} hours of jobs: {each}"


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Control-C is noted the first time, and leaves at once the second."""
    pressed: list[int] = []

    def press(number: int, _: object) -> None:
        pressed.append(number)
        if len(pressed) > 1:
            raise KeyboardInterrupt
        say("stopping; Control-C again leaves at once")

    before = signal.getsignal(signal.SIGINT)
    if not unheard(signal.SIGINT):
        signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
