"""What a process does for a trial, the same on every cluster: hear signals, run the trial, hand back or end.

It imports torch only when signals are heard: a cluster may send one while that takes its seconds.
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from wsolbench.attempts import Order, SupersededError, cluster_job
from wsolbench.errors import InputError
from wsolbench.place import Place
from wsolbench.stop import Stop, Stopped, by_signals
from wsolbench.trial import from_spec

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
_SECONDS = 30.0  # that SLURM has for an answer


def work(spec: Mapping[str, Any], place: Place, order: Order) -> int:
    """Run a trial in this process, which goes on afterwards; returns the exit code of how it went.

    Raises:
        KeyboardInterrupt: a person stopped it, in order.
    """
    with by_signals(Stop()) as stop:
        return _outcome(spec, place, order, stop, lambda _: None)


def work_and_exit(
    spec: Mapping[str, Any], place: Place, order: Order, stop: Stop | None = None, known: dict[bytes, Any] | None = None
) -> NoReturn:
    """Be the process of a job: run a trial; stopped by its cluster, have the job queued again; exit.

    Args:
        spec: of the trial.
        place: where it runs.
        order: of its launcher.
        stop: that signals ask of already.
        known: of other trials, as `job.Shared` keeps it.
    """
    stop = stop or Stop()
    stop.cancelled = _cancelled
    with by_signals(stop, patient=True):
        try:
            code = _outcome(spec, place, order, stop, _log, known=known)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except Stopped as stopped:
            _requeue()
            code = stopped.code
    sys.exit(code)


def _outcome(
    spec: Mapping[str, Any],
    place: Place,
    order: Order,
    stop: Stop,
    tell: Callable[[str], None],
    *,
    known: dict[bytes, Any] | None = None,
) -> int:
    from wsolbench import job  # noqa: PLC0415  imports torch

    def say(row: Mapping[str, Any]) -> None:
        tell(f"epoch {row['epoch']}/{spec['epochs']}  loss {row['loss']:.4f}  {row['seconds']:.1f} s")

    try:
        job.run(from_spec(spec), place, say, stop, order, known=known)
    except SupersededError as error:
        tell(str(error))
    except InputError as error:
        tell(f"error: {error}")
        return USAGE
    except Exception:  # noqa: BLE001  the store knows of it
        tell(traceback.format_exc())
        return FAILED
    return DONE


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _requeue() -> None:
    """Have SLURM queue this job again. It may have done so itself, when it preempts: a refusal is no failure."""
    if job := cluster_job():
        _log(f"scontrol requeue {job}: {_scontrol('requeue', job) or 'done'}")


def _cancelled() -> bool:
    """Whether it is by `scancel` that SLURM ends this job.

    While it is killed SLURM says no more than that it ends; but one that has to make room, or that an administrator
    requeues, has been started once more often by then than this process knows of.
    """
    if (job := cluster_job()) is None:
        return False
    said = dict(word.split("=", 1) for word in _scontrol("--oneliner", "show", "job", job).split() if "=" in word)
    ran, limit = (_seconds(said.get(name, "")) for name in ("RunTime", "TimeLimit"))
    in_time = ran is None or limit is None or ran < limit
    requeued = int(said.get("Restarts", 0)) > int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return said.get("JobState") in {"CANCELLED", "COMPLETING"} and in_time and not requeued


def _seconds(time: str) -> int | None:
    """Of `days-hours:minutes:seconds`; None for `UNLIMITED`."""
    days, _, clock = time.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in parts):
        return None
    return int(days or 0) * 86400 + sum(int(part) * 60**power for power, part in enumerate(reversed(parts)))


def _scontrol(*words: str) -> str:
    """What scontrol says, also of what is wrong; it may not be there, or hang."""
    command = ["scontrol", *words]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)  # noqa: S603  ours
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (said.stdout + said.stderr).strip()
