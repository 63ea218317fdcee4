"""Shows TensorBoard how a trial goes; whatever happens to the mirror, the trial does not notice.

The writer is a process of its own (`python -m wsolbench.mirror FOLDER`), fed with lines of JSON through a pipe that
never blocks: it may raise, hang, or find the disk full, and only the mirror is lost.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import Trial

Say = Callable[[Mapping[str, Any]], None]

WRITER_PATIENCE = 10.0
"""Seconds that the writer has to finish after the trial has."""

_NO_LIBRARY = "tensorboard is not installed: pip install 'wsolbench[tensorboard]'"


@contextmanager
def mirrored(trial: Trial, place: Place, say: Say) -> Iterator[Say]:
    """What tells `say`, and TensorBoard in the place's folder, each epoch's numbers; then the metrics of the record.

    Nothing of TensorBoard is raised; what went wrong is told on stderr at the end.
    """
    if place.tensorboard is None:
        yield say
        return
    writer = _Writer(place.tensorboard / run_name(trial))

    def both(row: Mapping[str, Any]) -> None:
        writer.tell(row["epoch"], {key: value for key, value in row.items() if key != "epoch"})
        say(row)

    try:
        yield both
        results = (Store(place.results).record(trial.id) or {}).get("results", {})
        writer.tell(
            trial.epochs, {f"{name}/{key}": value for name, found in results.items() for key, value in found.items()}
        )
    finally:
        writer.close()


def run_name(trial: Trial) -> str:
    """The folder of a trial among the runs of TensorBoard."""
    words = (trial.dataset, trial.backbone, trial.method, f"seed{trial.seed}", trial.id)
    return "_".join(re.sub(r"[^\w.-]", "-", word) for word in words)


class _Writer:
    """The process that writes, as long as it lives."""

    def __init__(self, folder: Path) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        with suppress(OSError):
            self.process = subprocess.Popen(  # noqa: S603  our own words
                [sys.executable, "-m", "wsolbench.mirror", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # what interrupts the trial lets the mirror finish
            )
            os.set_blocking(_pipe(self.process).fileno(), False)

    def tell(self, step: int, values: Mapping[str, Any]) -> None:
        """Send a line; it is lost if the writer does not take it."""
        if self.process is None:
            return
        line = json.dumps({"time": time.time(), "step": step, "values": _numbers(values)}).encode() + b"\n"
        with suppress(OSError, ValueError):
            _pipe(self.process).write(line)

    def close(self) -> None:
        """Let it finish, or end it; say what went wrong."""
        if self.process is None:
            return
        with suppress(OSError):
            _pipe(self.process).close()
        self.process.stdin = None
        try:
            _, said = self.process.communicate(timeout=WRITER_PATIENCE)
            wrong = said.decode(errors="replace").strip().rpartition("\n")[2] if self.process.returncode else ""
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            wrong = f"the writer did not finish within {WRITER_PATIENCE:g} s"
        if wrong:
            print(f"TensorBoard shows this trial in part or not at all: {wrong}", file=sys.stderr, flush=True)


def _pipe(process: "subprocess.Popen[bytes]") -> Any:
    assert process.stdin is not None  # noqa: S101  it is a pipe
    return process.stdin


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def write(folder: Path, lines: BinaryIO) -> None:
    """Write the numbers of lines of JSON, as they come, into a new event file in the folder.

    Raises:
        ImportError: there is no TensorBoard.
        OSError: the file cannot be written.
    """
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415  an extra; and without torch
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
    from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
    with (folder / name).open("xb") as file:
        events = RecordWriter(file)
        events.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        events.flush()
        for line in lines:
            told = json.loads(line)
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in told["values"].items()]
            event = Event(wall_time=told["time"], step=told["step"], summary=Summary(value=values))
            events.write(event.SerializeToString())
            events.flush()


if __name__ == "__main__":
    try:
        write(Path(sys.argv[1]), sys.stdin.buffer)
    except ModuleNotFoundError as missing:
        sys.exit(_NO_LIBRARY if (missing.name or "").startswith("tensorboard") else repr(missing))
    except OSError as problem:
        sys.exit(f"{sys.argv[1]}: {problem.strerror or problem}")
