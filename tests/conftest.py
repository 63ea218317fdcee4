"""What several test modules share: tiny data on disk, settings that train on it in a moment, the command line."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from tests import fake_data
from wsolbench import backbones, cli, job, plugins, recipe
from wsolbench.place import Place, cache_folder
from wsolbench.store import Store
from wsolbench.trial import Trial

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs the tests in the background

settings.register_profile("same every time", deadline=None, derandomize=True)
settings.load_profile("same every time")

BACKBONES = [plugins.example(backbones, name) for name in plugins.names(backbones)]
"""A backbone of each file."""

QUICK: Mapping[str, Any] = {
    "dataset": "cub",
    "backbone": "tiny",
    "method": "adl",
    "weights": "none",
    "epochs": 2,
    "batch_size": 5,
    "image_size": 32,
    "lr": 0.05,
    "head_lr": 0.05,
    "lr_steps": [1],
    "threads": 1,
}
"""Settings of a trial that takes a fraction of a second on the data of `cub`."""

NAN_METHOD = '''
"""The loss of the third step is no number."""

import torch
from pydantic.dataclasses import dataclass

from wsolbench.method import GapHead, Method
from wsolbench.plugins import OPTIONS


class Head(GapHead):
    steps = 0

    def loss(self, output, targets):
        self.steps += 1
        return super().loss(output, targets) * (float("nan") if self.steps == 3 else 1.0)


@dataclass(frozen=True, config=OPTIONS)
class Nan(Method):
    """Plain CAM until then."""

    def head(self, backbone, num_classes):
        return Head(backbone.channels, num_classes)


METHOD = Nan
'''


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of CUB: three classes, four training and four test images each."""
    return fake_data.cub(tmp_path_factory.mktemp("cub"), per_class=8)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of its own for decoded images; what `shapes` has drawn before is taken over."""
    folder = tmp_path_factory.mktemp("cache")
    for path in cache_folder().glob("shapes-*.npy"):
        shutil.copy(path, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSOLBENCH_CACHE", str(folder))
        yield


@pytest.fixture
def place(tmp_path: Path, cub: Path) -> Place:
    """An empty results folder beside the data."""
    return Place(tmp_path / "results", data=cub)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, cub: Path) -> Iterator[tuple[Trial, Place, dict[str, Any]]]:
    """A finished trial, where it is, and its record; to read only."""
    trial = recipe.complete(QUICK)
    place = Place(tmp_path_factory.mktemp("results"), data=cub)
    yield trial, place, job.run(trial, place)
    assert Store(place.results).ids() == [trial.id], "a test has run another trial in the folder that all share"


@pytest.fixture
def wsolbench(monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line in this process."""

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["wsolbench", *map(str, words)])
        out, err = io.StringIO(), io.StringIO()
        before = signal.getsignal(signal.SIGINT)  # which a command that was interrupted leaves deaf
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            cli.main()
        signal.signal(signal.SIGINT, before)
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(code, out.getvalue(), err.getvalue())

    return run


def words(**settings: Any) -> list[str]:
    """`QUICK` with these settings as KEY=VALUE words."""
    return [f"{key}={value}" for key, value in {**QUICK, **settings}.items()]


def method_folder(folder: Path, **sources: str) -> Path:
    """A folder of methods of one's own."""
    folder.mkdir(exist_ok=True)
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    return folder


def until(holds: Callable[[], Any], seconds: float = 60) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts the command line as a process of its own, in a group of its own; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: object, **environment: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "wsolbench", *map(str, arguments)]
        env = {**os.environ, **environment}
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, start_new_session=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.communicate()
