import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK, words
from tests.kills import POINTS
from wsolbench import recipe
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import Trial

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[1]
KILLS = int(os.environ.get("WSOLBENCH_KILLS", "500"))
TRIALS = [
    recipe.complete({**QUICK, "method": name, "seed": seed}) for seed in range(20) for name in ("cam", "adl", "has")
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture(scope="module")
def killed(cub: Path) -> Iterator[dict[str, Any]]:
    """What `kills.py` says of so many kills; in memory: SIGKILL leaves what was written, on a disk or not."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield _killed(Path(folder), cub)


def _killed(folder: Path, cub: Path) -> dict[str, Any]:
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
from wsolbench.attempts import SupersededError
from wsolbench.place import Place
from wsolbench.trial import from_spec

trial, place = from_spec(json.loads(sys.argv[1])), Place(Path(sys.argv[2]), data=Path(sys.argv[3]))

def run(barrier, queue):
    barrier.wait()
    try:
        queue.put(job.run(trial, place)["weights_digest"])
    except SupersededError:
        queue.put(None)

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

    digests = {digest for digest in json.loads(ended.stdout) if digest is not None}
    store = Store(place.results)
    record = store.record(trial.id) or {}
    kinds = sorted(attempt.exit()["kind"] for attempt in store.attempts(trial.id))
    assert digests == {record["weights_digest"]}
    assert kinds == ["done", *["superseded"] * (len(kinds) - 1)]
    assert [path.name for path in store.path(trial.id).rglob("*.tmp")] == []


READ_ONLY = """
folder=$1 out=$2 data=$3; shift 3
mount --bind $folder $folder; mount -o remount,ro,bind $folder
set +e
$0 -m wsolbench status --results $folder; echo status $?
$0 -m wsolbench report methods --results $folder --out $out; echo report $?
$0 -m wsolbench run --results $folder data=$data "$@"; echo run $?
"""


def test_read_only_results_are_read_and_nothing_is_trained(
    trained: tuple[Trial, Place, dict[str, Any]], tmp_path: Path, cub: Path
) -> None:
    trial, place, _ = trained
    inside = ["sh", "-ec", READ_ONLY, sys.executable, place.results, tmp_path / "out", cub, *words(seed=7)]
    ended = subprocess.run(["/usr/bin/unshare", "-rm", *inside], cwd=ROOT, capture_output=True, text=True, check=False)
    if "unshare:" in ended.stderr:
        pytest.skip(ended.stderr)

    assert f"{trial.id}  done" in ended.stdout
    assert "status 0" in ended.stdout
    assert (tmp_path / "out" / "methods.md").exists()
    assert "run 2" in ended.stdout
    reason = (
        f"cannot write to the results folder '{place.results}': Read-only file system; choose another with --results"
    )
    assert reason in ended.stderr
    assert "epoch 1/" not in ended.stderr


FULL = """
folder=$1 data=$2 command=$3; shift 3
mount -t tmpfs -o size=${SIZE}k none $folder/results
cd $folder
set +e
$0 -m wsolbench $command data=$data "$@"; echo full $?
cat results/*/attempts/0001/exit.json
mount -o remount,size=20m $folder/results
$0 -m wsolbench $command data=$data "$@"; echo again $?
"""


@pytest.mark.parametrize(("command", "kilobytes"), [("run", 300), ("sweep sweep.yaml", 450)])
def test_trial_on_a_full_disk_fails_by_name_and_goes_on_when_there_is_room(
    command: str, kilobytes: int, tmp_path: Path, cub: Path
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "sweep.yaml").write_text("trials: [{seed: 0}]\n", encoding="utf-8")
    script = FULL.replace("$command", command).replace("${SIZE}", str(kilobytes))
    inside = ["sh", "-ec", script, sys.executable, tmp_path, cub, "-", *words(epochs=8)]
    ended = subprocess.run(["/usr/bin/unshare", "-rm", *inside], cwd=ROOT, capture_output=True, text=True, check=False)
    if "unshare:" in ended.stderr:
        pytest.skip(ended.stderr)

    said = ended.stdout.splitlines()
    assert [line for line in said if line.startswith(("full", "again"))] == ["full 1", "again 0"], ended.stderr
    assert '"kind": "disk_full"' in ended.stdout
    assert "No space left on device (ENOSPC 28); `wsolbench gc` lists what can go" in ended.stderr
