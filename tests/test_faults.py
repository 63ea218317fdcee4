import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK
from tests.kills import POINTS
from wsolbench import recipe
from wsolbench.place import Place
from wsolbench.store import Store

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[1]
KILLS = int(os.environ.get("WSOLBENCH_KILLS", "500"))
TRIALS = [
    recipe.complete({**QUICK, "method": name, "seed": seed}) for seed in range(20) for name in ("cam", "adl", "has")
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, cub: Path) -> dict[str, Any]:
    """What `kills.py` says of so many kills."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "specs.json").write_text(json.dumps([trial.spec() for trial in TRIALS]), encoding="utf-8")
    words = [sys.executable, "-m", "tests.kills", folder / "specs.json", cub, folder, "--kills", str(KILLS)]
    ended = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True)
    print(ended.stdout)
    return json.loads(ended.stdout)


def test_as_many_were_killed_as_were_to_be(killed: dict[str, Any]) -> None:
    assert sum(killed["kills"].values()) >= KILLS
    assert killed["trials"] >= 60


def test_some_were_killed_after_every_step_at_any_time_and_with_their_launcher(killed: dict[str, Any]) -> None:
    assert {*POINTS, "time", "launcher"} <= killed["kills"].keys()


@pytest.mark.parametrize("what", ["lost", "corrupt", "doubled", "different"])
def test_no_result_is(killed: dict[str, Any], what: str) -> None:
    assert killed["wrong"].get(what, 0) == 0


SAME = """
import json, sys
from multiprocessing import get_context
from pathlib import Path
from wsolbench import job
from wsolbench.place import Place
from wsolbench.trial import from_spec

trial, place = from_spec(json.loads(sys.argv[1])), Place(Path(sys.argv[2]), data=Path(sys.argv[3]))

def run(barrier, queue):
    barrier.wait()
    queue.put(job.run(trial, place)["weights_digest"])

context = get_context("fork")
barrier, queue = context.Barrier(16), context.SimpleQueue()
processes = [context.Process(target=run, args=(barrier, queue)) for _ in range(16)]
for process in processes:
    process.start()
print(json.dumps([queue.get() for _ in processes]))
for process in processes:
    process.join()
"""


def test_16_processes_that_run_one_trial_at_once_record_it_once(tmp_path: Path, cub: Path) -> None:
    trial, place = TRIALS[0], Place(tmp_path / "results", data=cub)
    words = [sys.executable, "-c", SAME, json.dumps(trial.spec()), place.results, cub]
    ended = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True)

    digests = set(json.loads(ended.stdout))
    store = Store(place.results)
    record = store.record(trial.id) or {}
    kinds = sorted(attempt.exit()["kind"] for attempt in store.attempts(trial.id))
    assert digests == {record["weights_digest"]}
    assert kinds == ["done", *["superseded"] * 15]
    assert [path.name for path in store.path(trial.id).rglob("*.tmp")] == []
