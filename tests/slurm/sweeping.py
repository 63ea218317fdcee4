"""Sweeps of trials that last as long as a test wants, on a real cluster."""

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.conftest import QUICK, Ended
from tests.slurm.cluster import Cluster, await_
from wsolbench import job, sweep
from wsolbench.place import Place
from wsolbench.store import Store

HELD = '''
"""CAM, each of whose training steps lasts a second while a file is there."""

import os
import time
from pathlib import Path

from pydantic.dataclasses import dataclass

from wsolbench.method import Method
from wsolbench.plugins import OPTIONS


@dataclass(frozen=True, config=OPTIONS)
class Held(Method):
    """No options: how long it takes does not decide the result."""

    def augment(self, images, targets):
        end = time.monotonic() + 1
        while time.monotonic() < end and Path(os.environ["HELD_BY"]).exists():
            time.sleep(0.02)
        return images, targets


METHOD = Held
'''

PATIENCE = 240
"""Seconds within which what must happen does, on a busy machine too."""


@dataclass(frozen=True)
class Sweeping:
    """A sweep of trials that differ by their seed, in folders of its own.

    Args:
        cluster: where it runs.
        folder: of this test.
        data: a folder of CUB.
        methods: the folder of the method that lasts.
        trials: how many.
        settings: of all trials, beside `QUICK`.
    """

    cluster: Cluster
    folder: Path
    data: Path
    methods: Path
    trials: int
    settings: Mapping[str, Any]

    @property
    def held(self) -> Path:
        """The file that makes training last."""
        return self.folder / "held"

    @cached_property
    def file(self) -> Path:
        """The sweep's file."""
        base = {**QUICK, "method": "held", **self.settings}
        lines = ["base:", *(f"  {key}: {value}" for key, value in base.items()), f"seeds: {list(range(self.trials))}"]
        path = self.folder / "held.yaml"
        path.write_text("\n".join([*lines, "grid: {momentum: [0.9]}"]) + "\n", encoding="utf-8")
        return path

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a launcher, and so of its jobs."""
        own = {"WSOLBENCH_METHODS": str(self.methods), "HELD_BY": str(self.held), "OMP_WAIT_POLICY": "PASSIVE"}
        return {**self.cluster.environment, **own}

    def start(self, *words: object, **environment: str) -> "subprocess.Popen[str]":
        """The sweep's command as a process of its own, in a session of its own."""
        given = [str(word) for word in words]
        place = (f"data={self.data}", "device=cpu", "--results", str(self.store.folder))
        command = [sys.executable, "-m", "wsolbench", "sweep", str(self.file), "--cluster", "slurm", *place, *given]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: object, **environment: str) -> Ended:
        """The same, to its end."""
        with self.start(*words, **environment) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
        return Ended(process.returncode, out, err)

    def submit(self, *words: object) -> None:
        """Submit it."""
        ended = self.run("-y", *words)
        assert ended.code == 0, ended.err

    def command(self, *words: object) -> Ended:
        """Another command of wsolbench on its results."""
        given = [str(word) for word in words]
        command = [sys.executable, "-m", "wsolbench", *given, "--results", str(self.store.folder)]
        ended = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    @cached_property
    def store(self) -> Store:
        return Store(self.folder / "results")

    @property
    def trial(self) -> str:
        """The id of the only trial."""
        (found,) = self.store.ids()
        return found

    def attempts(self, trial: str | None = None) -> list[dict[str, Any]]:
        """Who ran a trial and how it ended, the oldest first."""
        return [{**attempt.meta(), **attempt.exit()} for attempt in self.store.attempts(trial or self.trial)]

    def kinds(self) -> list[str | None]:
        """How the attempts at the only trial have ended; None for one that has not, or was killed."""
        return [attempt.get("kind") for attempt in self.attempts()]

    def epoch(self, trial: str | None = None) -> int:
        """The last epoch that a trial has trained."""
        found = self.store.epochs(trial or self.trial) if self.store.ids() else []
        return found[-1]["epoch"] if found else 0

    def trained(self, epochs: int) -> None:
        """Wait until the only trial has trained so far."""
        await_(lambda: self.epoch() >= epochs, PATIENCE, f"epoch {epochs}")

    def done(self) -> None:
        """Let the trials end, and wait for their records, and for what the attempts behind these say of their end."""
        self.held.unlink(missing_ok=True)
        await_(lambda: len(self.records()) == self.trials, PATIENCE, f"{self.trials} records")
        await_(lambda: all(map(self._ended, self.records().values())), PATIENCE, "the end of their attempts")

    def _ended(self, record: dict[str, Any]) -> bool:
        return any(each.exit() for each in self.store.attempts(record["id"]) if each.name == record["attempt"])

    def records(self) -> dict[str, dict[str, Any]]:
        return {record["id"]: record for record in self.store.records()}

    def expected(self) -> dict[str, str]:
        """The digests of the weights that the same trials end with where nothing happens to them: id -> sha256."""
        place = Place(self.folder / "undisturbed", data=self.data, device="cpu")
        for trial in sweep.read(self.file, {}).trials:
            job.run(trial, place)
        return digests(Store(place.results))

    def jobs(self) -> list[str]:
        """Every job, or element of an array, that was submitted, those too that have ended."""
        words = ("squeue", "--noheader", "--array", "--states=all", "--format=%i")
        return sorted(self.cluster.slurm(*words).split())  # squeue sorts by state

    def running(self) -> list[str]:
        """The jobs that run."""
        return self.cluster.slurm("squeue", "--noheader", "--array", "--states=running", "--format=%i").split()


def digests(store: Store) -> dict[str, str]:
    """Trials and the digests of their weights."""
    return {record["id"]: record["weights_digest"] for record in store.records()}


def doubled(names: list[str]) -> list[str]:
    """Those that are there more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def alive(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # what has ended and waits for its parent has none
    except FileNotFoundError:
        return False
