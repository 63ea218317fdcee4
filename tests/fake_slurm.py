"""SLURM's commands as one small program that keeps its jobs in a file: it runs nothing, and fails as it is told to."""

import fcntl
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "squeue", "scontrol", "sacct", "scancel", "srun")
LIMIT = "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates policy"


class FakeSlurm:
    """The cluster as a test sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for name in COMMANDS:
            self.install(name)
        with self.state() as state:
            state |= {"next": 100, "jobs": {}, "most_jobs": 10_000, "array_size": 1001, "faults": {}, "calls": []}

    def install(self, name: str) -> None:
        program = f"#!{sys.executable} -SE\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        path = self.folder / name
        path.write_text(
            f"{program}import fake_slurm\nfake_slurm.main({name!r}, {str(self.folder)!r})\n", encoding="utf-8"
        )
        path.chmod(0o755)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink()

    @contextmanager
    def state(self) -> Iterator[dict[str, Any]]:
        """What the cluster knows, to change; one at a time."""
        with (self.folder / "state.json").open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            state = json.loads(file.read() or "{}")
            yield state
            file.truncate(0)
            file.write(json.dumps(state))

    @property
    def jobs(self) -> dict[str, dict[str, str]]:
        with self.state() as state:
            return dict(state["jobs"])

    def calls(self, name: str) -> int:
        with self.state() as state:
            return state["calls"].count(name)

    def change(self, job_id: str, **facts: str) -> None:
        with self.state() as state:
            state["jobs"][job_id] |= facts

    def forget(self, *job_ids: str) -> None:
        with self.state() as state:
            for job_id in job_ids:
                del state["jobs"][job_id]

    def set(self, **settings: Any) -> None:
        with self.state() as state:
            state.update(settings)

    def fault(self, name: str, how: str) -> None:
        """How a command fails from now on: `garbage`, `hang`, `disabled`, `kill before`, `kill after`, or a message."""
        with self.state() as state:
            state["faults"][name] = how


def main(name: str, folder: str) -> None:
    cluster = FakeSlurm.__new__(FakeSlurm)
    cluster.folder = Path(folder)
    with cluster.state() as state:
        how = state["faults"].get(name)
        state["calls"].append(name)
        slow = state.get("slow", 0) if name == "sbatch" else 0
    time.sleep(slow)
    if how == "hang":
        time.sleep(60)
    if how == "garbage":
        print("\x00 what | is\tthis")
        return
    if how == "kill before":
        os.kill(os.getppid(), signal.SIGKILL)
        return
    if how and how != "kill after":
        sys.exit(how)
    with cluster.state() as state:
        globals()[name](state, sys.argv[1:])
    if how == "kill after":
        os.kill(os.getppid(), signal.SIGKILL)


def sbatch(state: dict[str, Any], words: list[str]) -> None:
    script = Path(words[-1]).read_text(encoding="utf-8")
    said = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script, re.MULTILINE))
    size = int(said["array"].split("%")[0].split("-")[1]) + 1 if "array" in said else 1
    if size > state["array_size"]:
        sys.exit("sbatch: error: Batch job submission failed: Invalid job array specification")
    if sum(job["state"] in {"PENDING", "RUNNING"} for job in state["jobs"].values()) + size > state["most_jobs"]:
        sys.exit(LIMIT)
    number = state["next"]
    state["next"] += 1
    for element in range(size):
        job = {
            "state": "PENDING",
            "node": "",
            "comment": said["comment"],
            "reason": "Resources",
        }
        state["jobs"][f"{number}_{element}" if "array" in said else str(number)] = {**job, "script": words[-1]}
    print(number)


def squeue(state: dict[str, Any], _: list[str]) -> None:
    for job_id, job in state["jobs"].items():
        print(job_id, *(job[key] for key in ("state", "node", "comment", "reason")), sep="|")


def scontrol(state: dict[str, Any], words: list[str]) -> None:
    if words == ["show", "config"]:
        print(f"Configuration data\nMaxArraySize            = {state['array_size']}\nMaxJobCount             = 10000")
    elif words[-1] in state.get("accounts", {}):
        print(f"JobId=1 JobState={state['accounts'][words[-1]]} Reason=None ExitCode=0:9 NodeList=n1")
    else:
        sys.exit("slurm_load_jobs error: Invalid job id specified")


def sacct(state: dict[str, Any], _: list[str]) -> None:
    for job_id, ended in state.get("accounts", {}).items():
        print(job_id, ended, "0:9", "n1", sep="|")


def scancel(state: dict[str, Any], words: list[str]) -> None:
    for job_id in words:
        state["jobs"][job_id]["state"] = "CANCELLED"


def srun(_: dict[str, Any], __: list[str]) -> None:
    """It is only looked for."""
