import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import NAN_METHOD, QUICK, method_folder, until
from tests.fake_slurm import FakeSlurm
from wsolbench import claims, cluster, job, launch, methods, packing, recipe, source, watch, worker
from wsolbench.attempts import Order
from wsolbench.crew import Cluster, Crew
from wsolbench.errors import InputError
from wsolbench.launch import Progress
from wsolbench.place import Place
from wsolbench.resources import Resources
from wsolbench.stop import Stopped
from wsolbench.store import Store
from wsolbench.trial import Trial

MINE = '''
"""A method of one's own: images are turned upside down in training."""

from pydantic.dataclasses import dataclass

from wsolbench.method import Method
from wsolbench.plugins import OPTIONS


@dataclass(frozen=True, config=OPTIONS)
class Mine(Method):
    """One option."""

    turn: bool = True

    def augment(self, images, targets):
        return (images.flip(2) if self.turn else images), targets


METHOD = Mine
'''


@dataclass(frozen=True)
class Swept:
    """A sweep that has run."""

    trials: list[Trial]
    place: Place
    progress: Progress
    shown: list[tuple[int, int, int]]  # trials ended, epochs done, epochs in all

    @property
    def store(self) -> Store:
        return Store(self.place.results)


def trial_of(**settings: Any) -> Trial:
    return recipe.complete({**QUICK, **settings})


def launched(trials: list[Trial], place: Place, cluster: Cluster, jobs: int = 2) -> Swept:
    shown: list[tuple[int, int, int]] = []

    def show(progress: Progress) -> None:
        shown.append((len(progress.ended), progress.epochs_done, progress.epochs))

    return Swept(trials, place, launch.launch(trials, place, cluster, jobs, show), shown)


@pytest.fixture(scope="module", autouse=True)
def _own(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder of methods of one's own, found in this process and in those it starts."""
    folder = method_folder(tmp_path_factory.mktemp("methods"), nan_in_epoch_2=NAN_METHOD, mine=MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSOLBENCH_METHODS", str(folder))
        patch.setattr(methods, "__path__", [str(folder), *methods.__path__])
        yield folder


@pytest.fixture(scope="module", params=["debug", "local"])
def swept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, cub: Path) -> Swept:
    """A trial that fails, then one of a method of one's own and one of ADL."""
    trials = [trial_of(method=name) for name in ("nan_in_epoch_2", "mine", "adl")]
    place = Place(tmp_path_factory.mktemp(request.param), data=cub)
    return launched(trials, place, request.param)


def test_failed_trial_does_not_stop_the_others(swept: Swept) -> None:
    assert [swept.store.state(trial.id) for trial in swept.trials] == ["failed", "done", "done"]


def test_progress_says_how_each_trial_ended(swept: Swept) -> None:
    failed, *others = (swept.progress.ended[trial] for trial in swept.trials)

    assert failed.startswith("DivergedError: the loss is nan in the batch of images ")
    assert others == ["done", "done"]


def test_progress_counts_trials_and_epochs(swept: Swept) -> None:
    assert swept.shown[-1] == (3, 1 + 2 + 2, 3 * 2)
    assert (swept.progress.total, swept.progress.cached) == (3, 0)


def test_numbers_are_those_of_a_run_in_this_process(swept: Swept, trained: tuple[Trial, Place, dict[str, Any]]) -> None:
    trial, _, expected = trained

    record = swept.store.record(trial.id) or {}

    assert record["weights_digest"] == expected["weights_digest"]
    assert record["results"] == expected["results"]


def test_method_of_ones_own_runs_through_a_sweep(swept: Swept, tmp_path: Path) -> None:
    trial = swept.trials[1]

    record = swept.store.record(trial.id) or {}

    expected = job.run(trial, replace(swept.place, results=tmp_path))
    assert record["trial"]["method_options"] == {"turn": True}
    assert record["weights_digest"] == expected["weights_digest"]


def test_second_sweep_trains_nothing(swept: Swept) -> None:
    done = swept.trials[1:]
    before = [len(swept.store.attempts(trial.id)) for trial in done]

    again = launched(done, swept.place, "debug")

    assert [len(swept.store.attempts(trial.id)) for trial in done] == before == [1, 1]
    assert (again.progress.cached, again.progress.ended, again.shown) == (2, {}, [])


# On the debug cluster


def test_failed_trial_runs_again_in_the_next_sweep(place: Place) -> None:
    trial = trial_of(method="nan_in_epoch_2")

    for _ in range(2):
        launched([trial], place, "debug")

    assert len(Store(place.results).attempts(trial.id)) == 2


def test_a_finished_trial_that_another_protocol_cannot_score_is_not_done(place: Place) -> None:
    trial = trial_of(epochs=1, held_out=0)
    job.run(trial, place)

    again = launched([trial], replace(place, protocol="wsolbench"), "debug")

    assert again.progress.ended[trial].startswith("it has a result, but none by protocol wsolbench; ")


def test_every_trial_is_written_down_before_the_first_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [trial_of(seed=seed) for seed in range(3)]
    known: list[list[str]] = []
    monkeypatch.setattr(job, "run", lambda *_, **__: known.append(Store(place.results).ids()))

    launched(trials, place, "debug")

    assert known[0] == sorted(trial.id for trial in trials)


def test_trial_that_another_process_runs_is_waited_for(place: Place) -> None:
    trial, kept = trial_of(epochs=1), Store(place.results)
    kept.add(trial)
    attempt = kept.attempt(trial.id)
    attempt.begin({})
    finished = job.run(trial, replace(place, results=place.results.with_name("elsewhere")))

    ended: list[dict[Trial, str]] = []

    def finish(progress: Progress) -> None:
        ended.append(dict(progress.ended))
        if len(ended) == 2:
            kept.put(trial, {key: value for key, value in finished.items() if key not in {"schema", "id", "trial"}})
            attempt.end("done")

    launch.launch([trial], place, "debug", 2, finish)

    assert ended == [{}, {}, {trial: "done"}]
    assert len(kept.attempts(trial.id)) == 1


def test_trial_is_run_where_the_process_that_ran_it_dies(place: Place) -> None:
    trial, kept = trial_of(epochs=1), Store(place.results)
    kept.add(trial)
    dead = kept.attempt(trial.id)
    dead.begin({})
    meta = (dead.folder / "meta.json").read_text(encoding="utf-8")
    (dead.folder / "meta.json").write_text(meta.replace(f'"pid": {os.getpid()}', '"pid": 4194305'), encoding="utf-8")

    swept = launched([trial], place, "debug")

    assert swept.progress.ended == {trial: "done"}
    assert len(kept.attempts(trial.id)) == 2


def test_broken_record_is_told_and_the_others_run(place: Place) -> None:
    broken, other = trial_of(epochs=1), trial_of(epochs=1, seed=1)
    kept = Store(place.results)
    job.run(broken, place)
    kept.path(broken.id, "record.json").write_text("{}", encoding="utf-8")

    swept = launched([broken, other], place, "debug")

    assert "record.json is torn, altered or another trial's" in swept.progress.ended[broken]
    assert swept.progress.ended[other] == "done"


def test_interrupted_sweep_leaves_its_trials_interrupted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.SGD, "step", interrupted)
    trial = trial_of()

    with pytest.raises(KeyboardInterrupt):
        launched([trial], place, "debug")

    assert Store(place.results).state(trial.id) == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_sweep_that_is_stopped_in_its_own_process_runs_no_trial_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    step, trials, steps = torch.optim.SGD.step, [trial_of(), trial_of(seed=1)], []

    def stopping(*given: Any) -> Any:
        steps.append(given)
        if len(steps) == 1:
            os.kill(os.getpid(), number)
        return step(*given)

    monkeypatch.setattr(torch.optim.SGD, "step", stopping)

    with pytest.raises((KeyboardInterrupt, Stopped)):
        launched(trials, place, "debug")

    assert len(steps) == 1
    assert [Store(place.results).state(trial.id) for trial in trials] == [
        {signal.SIGINT: "interrupted", signal.SIGTERM: "preempted"}[number],
        "new",
    ]
    assert [claims.newest(Store(place.results), trial.id) for trial in trials] == [None, None]


def test_results_folder_that_is_a_file_is_told(place: Place) -> None:
    place.results.touch()

    with pytest.raises(InputError, match="cannot write to the results folder"):
        launched([trial_of()], place, "debug")


def test_job_is_sent_plain_data_only(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(worker, "work", lambda *arguments: sent.append(arguments))

    launched([trial_of()], place, "debug")

    assert sent[0] == (trial_of().spec(), place, Order(0, source.digest(), source.commit()))


@pytest.mark.parametrize(
    ("cores", "cards", "setting", "jobs"),
    [
        (8, 0, {"threads": 1}, 8),
        (8, 0, {"threads": 3}, 2),
        (2, 0, {"threads": 4}, 1),
        (8, 2, {"threads": 1}, 2),
        (8, 2, {"device": "cuda"}, 2),
        (8, 2, {"threads": 2, "device": "cpu"}, 4),
    ],
)
def test_as_many_jobs_as_the_machine_has_room_for(
    monkeypatch: pytest.MonkeyPatch, cores: int, cards: int, setting: dict[str, Any], jobs: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(packing, "free_bytes", lambda: [0] * cards)  # no room for a second one
    place = Place(Path("results"), device=setting.get("device", "auto"))

    assert launch.at_once([trial_of(threads=setting.get("threads", 1))], place) == jobs


@pytest.mark.parametrize(
    ("named", "cards"),
    [(None, ["0", "1", "0"]), ("4,6", ["4", "6", "4"]), ("GPU-8f,MIG-3,9", ["GPU-8f", "MIG-3", "GPU-8f"])],
)
def test_workers_use_the_cards_that_the_launcher_may(
    place: Place, monkeypatch: pytest.MonkeyPatch, named: str | None, cards: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    places = place, replace(place, device="cpu")

    made = [launch._Jobs(Store(one.results), one, "local", 3, Crew(one.results)) for one in places]

    anywhere, on_processor = (jobs.terms for jobs in made)
    assert (anywhere.cards, anywhere.place.gpus) == (cards, 1)
    assert (on_processor.cards, on_processor.place.gpus) == ([""] * 3, 0)


def test_number_of_jobs_is_known_without_affinities(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)

    assert launch.at_once([trial_of(threads=2)], place) == 3


@pytest.mark.parametrize("jobs", [1, 2])
def test_at_most_so_many_jobs_run_at_a_time(place: Place, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    running: list[int] = []
    start = launch._Jobs.start

    def counting(self: launch._Jobs, trial: Trial) -> None:
        start(self, trial)
        running.append(len(self.jobs))

    monkeypatch.setattr(launch._Jobs, "start", counting)

    launched([trial_of(epochs=0, seed=seed) for seed in range(4)], place, "debug", jobs)

    assert max(running) == jobs


# Several processes


def sweep_file(folder: Path, **axes: list[Any]) -> Path:
    base = ", ".join(f"{key}: {value}" for key, value in QUICK.items())
    grid = ", ".join(f"{key}: {values}" for key, values in axes.items())
    path = folder / "mine.yaml"
    path.write_text(f"base: {{{base}}}\ngrid: {{{grid}}}\n", encoding="utf-8")
    return path


Start = Callable[..., Any]


@pytest.mark.faults
def test_two_launchers_at_once_give_one_record_a_trial(start: Start, tmp_path: Path, cub: Path) -> None:
    file = sweep_file(tmp_path, seed=[0, 1, 2])
    words = ["sweep", file, f"data={cub}", "--results", tmp_path / "results", "--cluster", "debug"]

    launchers = [start(*words) for _ in range(2)]
    ended = [(launcher.wait(120), launcher.stderr.read()) for launcher in launchers]

    assert [code for code, _ in ended] == [0, 0], ended
    store = Store(tmp_path / "results")
    assert len(store.records()) == 3
    assert [len(store.attempts(trial_id)) for trial_id in store.ids()] == [1, 1, 1]


def test_claims_are_given_back(swept: Swept) -> None:
    assert list(swept.place.results.glob("*/submitted/*")) == []


def test_trial_that_another_launcher_has_is_waited_for(place: Place) -> None:
    trial, kept = trial_of(epochs=1), Store(place.results)
    kept.add(trial)
    other = claims.take(kept, trial.id, None, {"cluster": "local"})
    assert other is not None

    def run() -> None:
        job.run(trial, place)
        other.withdraw()

    thread = threading.Timer(1.0, run)
    thread.start()

    swept = launched([trial], place, "debug")

    thread.join()
    assert swept.progress.ended == {trial: "done"}
    assert swept.progress.epochs_done == 1


@pytest.mark.faults
def test_process_that_does_not_stop_is_killed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "STOP_PATIENCE", 1.0)
    trial, kept = trial_of(epochs=3000), Store(place.results)
    seen: list[int] = []

    def interrupt(progress: Progress) -> None:
        if progress.epochs_done > 2 and not seen:
            seen.append(kept.attempts(trial.id)[-1].meta()["pid"])
            os.kill(seen[0], signal.SIGSTOP)  # it hears nothing any more
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch.launch([trial], place, "local", 1, interrupt)

    until(lambda: not Path(f"/proc/{seen[0]}").exists() or "Z" in Path(f"/proc/{seen[0]}/stat").read_text().split()[2])


@pytest.mark.faults
def test_killed_job_is_told_and_the_others_run(place: Place) -> None:
    long, short = trial_of(epochs=3000), trial_of(epochs=1)
    kept = Store(place.results)

    def kill() -> None:
        until(lambda: len(kept.epochs(long.id)) > 2)
        os.kill(kept.attempts(long.id)[-1].meta()["pid"], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    swept = launched([long, short], place, "local")
    thread.join()

    assert swept.progress.ended == {long: "its process was killed", short: "done"}
    assert kept.state(long.id) == "lost"


def test_workers_that_cannot_work_are_told_and_not_started_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cv2.py").write_text('raise ImportError("libGL.so.1: cannot open shared object file")')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(InputError, match=r"cannot work here: ImportError: libGL.so.1: .*; what they said: .*\.err"):
        launched([trial_of()], place, "local")

    store = Store(place.results)
    assert store.state(trial_of().id) == "new"
    assert claims.newest(store, trial_of().id) is None
    assert len(list(place.results.glob(".jobs/*/*.err"))) == 1


@pytest.mark.faults
def test_killed_launcher_loses_nothing(start: Start, tmp_path: Path, cub: Path) -> None:
    file, kept = sweep_file(tmp_path, seed=[0, 1], epochs=[40]), Store(tmp_path / "results")
    words = ["sweep", file, f"data={cub}", "--results", kept.folder]

    launcher = start(*words)
    until(lambda: any(kept.epochs(trial_id) for trial_id in kept.ids()))
    os.kill(launcher.pid, signal.SIGKILL)
    again = start(*words)

    assert again.wait(120) == 0, again.stderr.read()
    assert [kept.state(trial_id) for trial_id in kept.ids()] == ["done", "done"]


@pytest.mark.faults
def test_control_c_interrupts_all_jobs_and_the_same_command_goes_on(start: Start, tmp_path: Path, cub: Path) -> None:
    file, kept = sweep_file(tmp_path, seed=[0, 1], epochs=[60]), Store(tmp_path / "results")
    words = ["sweep", file, f"data={cub}", "--results", kept.folder]

    launcher = start(*words)
    until(lambda: len(kept.ids()) == 2 and all(kept.epochs(trial_id) for trial_id in kept.ids()))
    os.killpg(launcher.pid, signal.SIGINT)
    code = launcher.wait(60)
    states = [kept.state(trial_id) for trial_id in kept.ids()]
    again = start(*words)

    said = launcher.stderr.read()
    assert (code, states) == (130, ["interrupted"] * 2), said
    assert "Traceback" not in said
    assert again.wait(120) == 0, again.stderr.read()
    assert [kept.state(trial_id) for trial_id in kept.ids()] == ["done", "done"]


# Beside a cluster


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return FakeSlurm(tmp_path / "bin")


def submitted(place: Place, trial: Trial) -> str:
    """The id of the job that now stands for a trial."""
    asked = Resources(timeout_min=60, mem_gb=4.0, gpus_per_node=0, signal_delay_s=120)
    plan = cluster.Plan({trial.id: trial}, place, {trial.id: asked})
    plan.store.add(trial)
    plan.look()
    return cluster.submit(plan, None, lambda: False).jobs[trial.id]


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_trial_of_a_job_in_the_queue_is_left_to_it(fake: FakeSlurm, place: Place, state: str) -> None:
    queued, free = trial_of(seed=1), trial_of(seed=2)
    job_id = submitted(place, queued)
    fake.change(job_id, state=state)

    progress = launched([queued, free], place, "debug").progress

    assert progress.ended == {free: "done"}
    assert f" as job {job_id}" in progress.left[queued]
    assert progress.left[queued].endswith(f"to run it here `wsolbench cancel {queued.id}`")
    assert not Store(place.results).attempts(queued.id)
    assert fake.jobs[job_id]["state"] == state


def test_trial_whose_job_has_left_the_queue_runs_here(
    fake: FakeSlurm, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = trial_of(seed=1)
    fake.forget(submitted(place, trial))
    monkeypatch.setattr(watch, "ABSENCE", 0.0)

    assert launched([trial], place, "debug").progress.ended == {trial: "done"}


def test_trial_whose_job_was_cancelled_runs_here(fake: FakeSlurm, place: Place) -> None:
    trial = trial_of(seed=1)
    fake.change(submitted(place, trial), state="CANCELLED")

    assert launched([trial], place, "debug").progress.ended == {trial: "done"}


def test_trial_of_a_job_is_left_to_it_while_nobody_can_ask(fake: FakeSlurm, place: Place) -> None:
    trial = trial_of(seed=1)
    submitted(place, trial)
    fake.fault("squeue", "no answer")

    left = launched([trial], place, "debug").progress.left

    claim = claims.newest(Store(place.results), trial.id)
    assert claim is not None
    assert left[trial].startswith("queued as job 100 (not sure: ")
    assert left[trial].endswith(f"if it is gone, remove {claim.folder}")


@pytest.mark.faults
def test_two_launchers_at_once_here_and_on_the_cluster_have_each_trial_once(fake: FakeSlurm, place: Place) -> None:
    trials = [trial_of(seed=seed) for seed in range(4)]
    for trial in trials[:2]:
        submitted(place, trial)

    progress = launched(trials, place, "local").progress

    plan = cluster.Plan({trial.id: trial for trial in trials}, place, {})
    plan.look()
    assert set(progress.left) == set(trials[:2])
    assert [plan.standings[trial.id].state for trial in trials] == ["queued", "queued", "done", "done"]
    assert len(fake.jobs) == 2
