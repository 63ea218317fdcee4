"""What the tests on a real cluster share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import method_folder
from tests.slurm.cluster import Cluster, await_, cluster
from tests.slurm.sweeping import HELD, PATIENCE, Sweeping
from wsolbench import methods


@pytest.fixture(scope="module")
def slurm(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster of a file's tests, with the settings of its `CLUSTER`; no job's process outlives the tests."""
    with cluster(**getattr(request.module, "CLUSTER", {})) as up:
        yield up
        await_(lambda: not up.jobs(), PATIENCE, "the end of every job's processes")


@pytest.fixture
def sweeping(slurm: Cluster, tmp_path: Path, cub: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sweeping]:
    """A sweep on the file's cluster, held until the test lets it go; its trials run in this process too."""
    folder = method_folder(tmp_path / "methods", held=HELD)
    monkeypatch.setattr(methods, "__path__", [str(folder), *methods.__path__])
    monkeypatch.setenv("HELD_BY", str(tmp_path / "never"))

    def make(trials: int = 1, **settings: Any) -> Sweeping:
        made = Sweeping(slurm, tmp_path, cub, folder, trials, settings)
        made.held.touch()
        return made

    return make
