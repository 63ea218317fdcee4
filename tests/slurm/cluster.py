"""The cluster of `tests/slurm/cluster` in Python."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")
SCRIPT = Path(__file__).with_name("cluster")
PERIOD = 0.2
"""Seconds between two looks at something awaited."""


@dataclass(frozen=True)
class Cluster:
    """A SLURM of its own, three nodes n1 to n3, that nothing else on this machine sees."""

    folder: Path
    settings: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a process that uses it; none of an outer SLURM."""
        outer = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return {**outer, **self.settings, "SLURM_CONF": str(self.folder / "etc" / "slurm.conf")}

    def slurm(self, *words: object) -> str:
        """What a command of SLURM prints."""
        command = [str(word) for word in words]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def crash(self, node: str) -> None:
        """A node loses power."""
        self._call("crash", node)

    def cut(self, node: str) -> None:
        """A node loses the network: its jobs go on, unseen."""
        self._call("cut", node)

    def start(self, node: str) -> None:
        """The node is back."""
        self._call("start", node)

    def processes(self) -> dict[int, str]:
        """Everything that lives in it, daemons and jobs: process number -> command line."""
        return {pid: words for pid, words, environment in living() if self._mark in environment}

    def jobs(self) -> dict[int, str]:
        """What lives of its jobs."""
        ours = ((pid, words, environment) for pid, words, environment in living() if self._mark in environment)
        return {pid: words for pid, words, names in ours if any(name.startswith(b"SLURM_JOB_ID=") for name in names)}

    @property
    def _mark(self) -> bytes:
        """What its processes have in their environment, whatever becomes of their parents."""
        return f"SLURM_CONF={self.folder}/etc/slurm.conf".encode()

    def _call(self, *words: str) -> None:
        ended = subprocess.run([SCRIPT, *words], env=self.environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr


@contextmanager
def cluster(**settings: object) -> Iterator[Cluster]:
    """A cluster that is up, and gone afterwards.

    Args:
        settings: of the script, without `CLUSTER_`, in small letters.
    """
    memory = Path("/dev/shm")  # noqa: S108  MariaDB's many small writes
    folder = Path(tempfile.mkdtemp(prefix="w", dir=memory if memory.is_dir() else None))
    words = {f"CLUSTER_{name.upper()}": str(value) for name, value in settings.items()}
    made = Cluster(folder, {"CLUSTER_ACCOUNTING": "none", **words, "CLUSTER_DIR": str(folder)})
    try:
        made._call("up")
        yield made
    finally:
        made._call("down")
        shutil.rmtree(folder, ignore_errors=True)
    assert made.processes() == {}


def living() -> Iterator[tuple[int, str, list[bytes]]]:
    """Number, command line and environment of every process of ours that has not ended."""
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if entry.name.isdecimal() and words:  # a zombie has no command line
            yield int(entry.name), words, environment


def await_(what: Callable[[], Found], seconds: float, named: str) -> Found:
    """What a call returns as soon as that is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {named}"
        time.sleep(PERIOD)
    return found
