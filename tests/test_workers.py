"""The process that forks a child for each local trial."""

import gc
import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK, until
from wsolbench import attempts, job, recipe, worker, workers
from wsolbench.attempts import Order
from wsolbench.place import Place
from wsolbench.stop import Stop, by_signals
from wsolbench.trial import from_spec
from wsolbench.workers import Handover, Terms

SPEC = recipe.complete(QUICK).spec()


@pytest.fixture
def handover(tmp_path: Path) -> Handover:
    made = Handover(tmp_path / "handover")
    made.open()
    return made


def test_trials_are_taken_in_order_and_once(handover: Handover) -> None:
    for name in ("000002-b", "000001-a"):
        handover.hand(name, {"seed": name})

    taken = [handover.next() for _ in range(3)]

    assert taken == [("000001-a", {"seed": "000001-a"}), ("000002-b", {"seed": "000002-b"}), None]


def test_what_is_taken_back_is_not_run(handover: Handover) -> None:
    handover.hand("1", SPEC)

    assert (handover.withdraw("1"), handover.withdraw("1"), handover.next()) == (True, False, None)


def asked_to_stop(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def served(
    handover: Handover,
    monkeypatch: pytest.MonkeyPatch,
    run: Any,
    cards: tuple[str, ...] | None = ("", ""),
    *,
    warm: Any = lambda: None,
    launcher: dict[str, Any] | None = None,
) -> int | None:
    """Serve what has been handed over, with `run` as what a child does, in a process of its own; how it exited."""
    monkeypatch.setattr(worker, "work_and_exit", run)
    monkeypatch.setattr(workers, "warm", warm)
    if cards is not None:
        handover.agree(Terms(Place(handover.folder), Order(), cards))
    if launcher is None:
        handover.close()
    process = get_context("fork").Process(target=workers.serve, args=(handover, launcher or attempts.here()))
    process.start()
    process.join(60)
    return process.exitcode


GONE = {"pid": 2**22 + 1, "process_start": "gone"}


def codes(handover: Handover) -> dict[str, int]:
    return {path.name: int(path.read_text()) for path in sorted((handover.folder / "ended").iterdir())}


def test_a_child_that_dies_takes_one_trial(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(spec: Any, *_: object, **__: object) -> None:
        if spec["seed"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if spec["seed"] == 2:
            raise RuntimeError
        raise SystemExit(spec["seed"])

    for seed in range(4):
        handover.hand(str(seed), {"seed": seed})

    served(handover, monkeypatch, run)

    assert codes(handover) == {"0": 0, "1": -9, "2": worker.FAILED, "3": 3}


def test_a_child_finds_its_backbone_imported(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe._blueprint.cache_clear()

    def run(spec: Any, *_: object, **__: object) -> None:
        before = recipe._blueprint.cache_info().misses
        recipe.blueprint(spec["backbone"], spec["backbone_options"])
        raise SystemExit(recipe._blueprint.cache_info().misses - before)

    for name in ("1", "2"):
        handover.hand(name, SPEC)
    handover.hand("3", {**SPEC, "backbone": "none such"})

    served(handover, monkeypatch, run)

    assert codes(handover) == {"1": 0, "2": 0, "3": worker.FAILED}


def test_children_find_their_images_and_truth_read_and_their_networks_counted(
    handover: Handover, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(spec: Any, place: Place, *_: object, known: dict[bytes, Any]) -> None:
        mine, before = from_spec(spec), dict(known)
        shared = job.Shared(known)
        cost = shared.cost(mine, len(shared.splits(mine, place).test.classes))
        (truth,) = shared.truths(mine, place).values()
        read = {"_boxes", "_bodies"} <= vars(truth).keys() and len(truth.views) == len(truth)
        raise SystemExit(0 if known == before and cost["params_mib"] > 0 and read else 1)

    for name, other in (("1", {}), ("2", {"seed": 1}), ("3", {"held_out": 0.2, "method": "has"})):
        handover.hand(name, recipe.complete({**QUICK, "dataset": "shapes", **other}).spec())

    served(handover, monkeypatch, run)

    assert codes(handover) == {"1": 0, "2": 0, "3": 0}


def test_a_child_looks_for_no_garbage_in_what_was_there(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_spec: Any, *_: object, **__: object) -> None:
        raise SystemExit(0 if gc.isenabled() and gc.get_freeze_count() > len(gc.get_objects()) else 1)

    handover.hand("1", SPEC)

    served(handover, monkeypatch, run)

    assert codes(handover) == {"1": 0}


@pytest.mark.parametrize("cards", [None, ("",)])
def test_a_stop_during_the_imports_ends_them(
    handover: Handover, monkeypatch: pytest.MonkeyPatch, cards: tuple[str, ...] | None
) -> None:
    handover.hand("1", SPEC)

    exited = served(handover, monkeypatch, None, cards, warm=asked_to_stop)

    assert (exited, codes(handover), handover.next()) == (-signal.SIGTERM, {}, ("1", SPEC))


@pytest.mark.parametrize("launcher", [None, GONE], ids=["closed", "without its launcher"])
def test_without_terms_nothing_is_taken(
    handover: Handover, monkeypatch: pytest.MonkeyPatch, launcher: dict[str, Any] | None
) -> None:
    handover.hand("1", SPEC)

    exited = served(handover, monkeypatch, None, cards=None, launcher=launcher)

    assert (exited, codes(handover), handover.next()) == (0, {}, ("1", SPEC))


def test_terms_may_come_late(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_spec: Any, place: Place, order: Order, **_: object) -> None:
        raise SystemExit(0 if (place, order) == (terms.place, terms.order) else 1)

    terms = Terms(Place(handover.folder, protocol="adl2019"), Order(3, "code", "commit"), ("",))
    monkeypatch.setattr(worker, "work_and_exit", run)
    monkeypatch.setattr(workers, "warm", lambda: None)
    looks, look = handover.folder / "looks", Handover.terms

    def counted(self: Handover) -> Terms | None:
        with looks.open("a") as file:
            file.write(".")
        return look(self)

    monkeypatch.setattr(Handover, "terms", counted)
    process = get_context("fork").Process(target=workers.serve, args=(handover, attempts.here()))
    process.start()
    handover.hand("1", SPEC)
    until(lambda: looks.exists() and looks.stat().st_size > 1)
    waited = not codes(handover)
    handover.agree(terms)
    handover.close()
    process.join(60)

    assert (waited, process.exitcode, codes(handover)) == (True, 0, {"1": 0})


def test_a_stop_while_a_trial_is_prepared_leaves_it_to_be_taken(
    handover: Handover, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "prepare", asked_to_stop)
    for name in ("1", "2"):
        handover.hand(name, SPEC)

    exited = served(handover, monkeypatch, None)

    assert (exited, codes(handover)) == (0, {})
    assert [handover.next() for _ in range(2)] == [("1", SPEC), ("2", SPEC)]


def test_a_stop_at_the_start_of_a_child_reaches_it(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    fork = os.fork

    def forked() -> int:
        if child := fork():
            asked_to_stop()
        return child

    def run(_spec: Any, *_: object, **__: object) -> None:
        with by_signals(Stop()) as stop:
            deadline = time.monotonic() + 20
            while stop.asked is None and time.monotonic() < deadline:
                time.sleep(0.01)
        raise SystemExit(stop.asked or 0)

    handover.hand("1", SPEC)

    served(handover, monkeypatch, run, warm=lambda: monkeypatch.setattr(os, "fork", forked))  # there, not here

    assert codes(handover) == {"1": signal.SIGTERM}


def test_a_child_that_hears_signals_writes_out_nothing_that_is_known(
    handover: Handover, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Images:
        shown = 0

        def __repr__(self) -> str:
            Images.shown += 1
            return "a million of them"

    def run(_spec: Any, *_: object, **__: object) -> None:
        with by_signals(Stop()):
            raise SystemExit(Images.shown)

    monkeypatch.setattr(workers, "prepare", lambda _spec, _place, known: known.update(images=Images()))
    handover.hand("1", SPEC)

    served(handover, monkeypatch, run)

    assert codes(handover) == {"1": 0}


@pytest.mark.parametrize("at_once", [1, 3])
def test_at_most_so_many_children_at_a_time(handover: Handover, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    folder = handover.folder

    def run(spec: Any, *_: object, **__: object) -> None:
        mine = folder / f"running-{spec['seed']}"
        mine.touch()
        (folder / f"began-{spec['seed']}").touch()
        until(lambda: len(list(folder.glob("began-*"))) >= at_once)
        (folder / f"seen-{spec['seed']}").write_text(str(len(list(folder.glob("running-*")))))
        mine.unlink()
        raise SystemExit(0)

    for seed in range(6):
        handover.hand(str(seed), {"seed": seed})

    served(handover, monkeypatch, run, ("",) * at_once)

    assert max(int(path.read_text()) for path in folder.glob("seen-*")) == at_once
    assert len(codes(handover)) == 6


def test_each_slot_has_a_card_of_its_own(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = handover.folder

    def run(spec: Any, *_: object, **__: object) -> None:
        (folder / f"card-{spec['seed']}").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        until(lambda: len(list(folder.glob("card-*"))) == 2)  # the other runs meanwhile
        raise SystemExit(0)

    for seed in range(2):
        handover.hand(str(seed), {"seed": seed})

    served(handover, monkeypatch, run, cards=("4", "GPU-6"))

    assert {path.read_text() for path in folder.glob("card-*")} == {"4", "GPU-6"}


def test_without_its_launcher_it_takes_nothing(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    handover.hand("1", SPEC)

    exited = served(handover, monkeypatch, None, launcher=GONE)

    assert (exited, codes(handover), handover.withdraw("1")) == (0, {}, True)
