import errno
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests import fake_data
from tests.conftest import NAN_METHOD, QUICK, method_folder
from wsolbench import checkpoint, datasets, files, job, loop, methods, network, plugins, recipe, source, store
from wsolbench.attempts import Order
from wsolbench.errors import InputError
from wsolbench.loop import DivergedError
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import Trial

DRAWING = {"adl", "has", "cutmix"}
"""Small methods that draw, in the network or before it; the others are marked `full`."""

Trained = tuple[Trial, Place, dict[str, Any]]


def trial_of(**settings: Any) -> Trial:
    return recipe.complete({**QUICK, **settings})


def stop_after(epoch: int, error: BaseException) -> job.Say:
    def say(row: Mapping[str, Any]) -> None:
        if row["epoch"] == epoch:
            raise error

    return say


def interrupt(trial: Trial, place: Place, epoch: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        job.run(trial, place, stop_after(epoch, KeyboardInterrupt()))


# Every data set


@pytest.mark.parametrize("dataset", plugins.names(datasets))
def test_a_trial_runs_on_every_data_set(tmp_path: Path, dataset: str) -> None:
    fill = fake_data.FAKES.get(dataset)
    data = fill(tmp_path / "data") if fill else None
    options = fake_data.OPTIONS.get(dataset, {})
    trial = trial_of(**{"dataset": dataset, "epochs": 1, "image_size": 32, "held_out": 0.3, **options})
    place = Place(tmp_path / "results", data=data, protocol="acol_spg")

    record = job.run(trial, place)

    test = plugins.make(datasets, dataset, options).split("test", data)
    localized = {"gt_known_loc", "error_part"} if test.boxed else {"px_ap"}
    for metrics in record["results"].values():
        assert {"top1_clas"} | localized <= metrics.keys()
        assert ("px_ap" in metrics) == (test.mask is not None)
        assert all(np.isfinite(value) for value in metrics.values())
    assert record["images"]["test"] == len(test)
    assert "acol_spg" in record["results"]


# The record


def test_record_is_of_the_trial(trained: Trained) -> None:
    trial, place, record = trained

    assert (record["id"], record["trial"]) == (trial.id, trial.spec())
    assert record == Store(place.results).record(trial.id)


def test_record_has_finite_metrics_of_its_protocol(trained: Trained) -> None:
    record = trained[2]

    metrics = record["results"][record["protocol"]]
    assert {"top1_clas", "gt_known_loc", "top1_loc"} <= metrics.keys()
    assert all(np.isfinite(value) for value in metrics.values())


def test_record_has_a_line_for_each_epoch(trained: Trained) -> None:
    trial, _, record = trained

    assert [row["epoch"] for row in record["epochs"]] == list(range(1, trial.epochs + 1))
    assert all(np.isfinite(row["loss"]) for row in record["epochs"])


def test_record_has_the_digest_of_the_last_checkpoint(trained: Trained) -> None:
    trial, place, record = trained
    net, _ = network.network(trial, place, 3)

    reached = checkpoint.resume(Store(place.results).path(trial.id, "checkpoint"), net, loop.optimizer(net, trial))

    assert (reached.epoch, checkpoint.digest(net)) == (trial.epochs, record["weights_digest"])


def test_record_says_what_the_numbers_were_computed_with(trained: Trained) -> None:
    environment = trained[2]["environment"]

    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert environment["threads"] == QUICK["threads"]
    assert environment["tf32"] is False


def test_record_counts_the_images(trained: Trained) -> None:
    images = trained[2]["images"]

    assert images["train"] + images["held_out"] == images["test"] == 12


def test_record_holds_no_path(trained: Trained) -> None:
    _, place, record = trained

    text = json.dumps(record)

    assert str(place.results) not in text
    assert str(place.data) not in text


def test_stored_trial_is_not_trained_again(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, place, record = trained
    monkeypatch.setattr(loop, "Trainer", None)

    assert job.run(trial, place) == record


def test_stored_trial_needs_no_data(trained: Trained) -> None:
    trial, place, record = trained

    assert job.run(trial, replace(place, data=None)) == record


@pytest.mark.parametrize("threads", [1, 2])
def test_trial_runs_with_its_number_of_threads(place: Place, threads: int) -> None:
    record = job.run(trial_of(threads=threads, epochs=1), place)

    torch.set_num_threads(1)
    assert record["environment"]["threads"] == threads


def test_no_epochs_evaluate_the_network_as_it_is(place: Place) -> None:
    record = job.run(trial_of(epochs=0), place)

    assert record["epochs"] == []
    assert not Store(place.results).path(record["id"], "checkpoint").exists()


# The same again


def test_same_trial_elsewhere_has_the_same_numbers(trained: Trained, place: Place) -> None:
    trial, _, record = trained

    again = job.run(trial, place)

    assert again["weights_digest"] == record["weights_digest"]
    assert again["results"] == record["results"]


@pytest.mark.parametrize("setting", [{"workers": 2}, {"device": "cpu"}])
def test_place_does_not_change_the_numbers(trained: Trained, place: Place, setting: dict[str, Any]) -> None:
    trial, _, record = trained

    again = job.run(trial, replace(place, **setting))

    assert (again["weights_digest"], again["results"]) == (record["weights_digest"], record["results"])


def test_another_seed_has_other_weights(trained: Trained, place: Place) -> None:
    trial, _, record = trained

    assert job.run(replace(trial, seed=1), place)["weights_digest"] != record["weights_digest"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in DRAWING else pytest.mark.full) for name in plugins.names(methods)]
)
def test_interrupted_trial_goes_on_bit_for_bit(place: Place, name: str) -> None:
    trial = trial_of(method=name, epochs=3)
    whole = job.run(trial, replace(place, results=place.results.with_name("whole")))

    interrupt(trial, place, 1)
    interrupt(trial, place, 2)
    resumed = job.run(trial, place)

    assert resumed["weights_digest"] == whole["weights_digest"]
    assert resumed["results"] == whole["results"]


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.full)])
def test_batch_normalisation_goes_on_bit_for_bit_too(place: Place, precision: str) -> None:
    trial = trial_of(backbone="mobilenet_v1", precision=precision)
    whole = job.run(trial, replace(place, results=place.results.with_name("whole")))

    interrupt(trial, place, 1)

    assert job.run(trial, place)["weights_digest"] == whole["weights_digest"]


def test_record_of_a_resumed_trial_has_every_epoch(place: Place) -> None:
    trial = trial_of(epochs=3)
    interrupt(trial, place, 1)

    record = job.run(trial, place)

    assert [row["epoch"] for row in record["epochs"]] == [1, 2, 3]


def test_damaged_checkpoint_does_not_change_the_numbers(place: Place) -> None:
    trial = trial_of(epochs=3)
    whole = job.run(trial, replace(place, results=place.results.with_name("whole")))
    interrupt(trial, place, 2)
    newest = max(Store(place.results).path(trial.id, "checkpoint").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-100])

    assert job.run(trial, place)["weights_digest"] == whole["weights_digest"]


def test_two_attempts_at_once_give_one_record(place: Place) -> None:
    trial = trial_of()
    other: list[dict[str, Any]] = []

    def say(row: Mapping[str, Any]) -> None:
        if row["epoch"] == 1 and not other:
            other.append({})
            other[0] = job.run(trial, place)  # overtakes this one

    record = job.run(trial, place, say)

    assert record == other[0]
    assert len(Store(place.results).attempts(trial.id)) == 2


# What ends badly


def test_interrupted_trial_says_so(place: Place) -> None:
    trial = trial_of()

    interrupt(trial, place, 1)

    assert Store(place.results).state(trial.id) == "interrupted"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("no"), "failed", "ValueError: no"),
        (OSError(errno.EIO, "broken", "x"), "failed", "OSError: [Errno 5] broken: 'x'"),
        (
            OSError(errno.ENOSPC, "full", "x"),
            "disk_full",
            "x: full (ENOSPC 28); `wsolbench gc` lists what can go",
        ),
        (
            OSError(errno.EDQUOT, "quota", "x"),
            "disk_full",
            "x: quota (EDQUOT 122); `wsolbench gc` lists what can go",
        ),
        (torch.OutOfMemoryError("no room"), "oom", "OutOfMemoryError: no room"),
        (MemoryError("no room"), "oom", "MemoryError: no room"),
        (DivergedError("no number"), "diverged", "DivergedError: no number"),
    ],
)
def test_what_stopped_a_trial_is_written_down(place: Place, error: Exception, kind: str, message: str) -> None:
    trial = trial_of()
    with pytest.raises(type(error)):
        job.run(trial, place, stop_after(1, error))

    (attempt,) = Store(place.results).attempts(trial.id)
    assert attempt.exit()["kind"] == kind
    assert attempt.exit()["message"] == message
    assert "Traceback" in (attempt.folder / "log.txt").read_text(encoding="utf-8")


def test_loss_that_is_no_number_ends_a_trial_as_diverged(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = method_folder(tmp_path / "methods", nan_in_epoch_2=NAN_METHOD)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    trial = trial_of(method="nan_in_epoch_2", epochs=3)

    with pytest.raises(
        DivergedError, match=r"^the loss is nan in the batch of images \S+\.jpg(, \S+\.jpg)*$"
    ) as caught:
        job.run(trial, place)

    kept = Store(place.results)
    ended = kept.attempts(trial.id)[0].exit()
    assert (ended["kind"], ended["message"]) == ("diverged", f"DivergedError: {caught.value}")
    assert (kept.state(trial.id), kept.record(trial.id)) == ("failed", None)
    assert [row["epoch"] for row in kept.attempts(trial.id)[0].epochs()] == [1]


def test_weights_that_are_no_numbers_make_no_record(place: Place) -> None:
    trial = trial_of(epochs=1, lr=1e38, head_lr=1e38, batch_size=100)  # the only loss is a number

    with pytest.raises(DivergedError, match=r"^the scores are not finite in the batch of images \S+\.jpg, "):
        job.run(trial, place)

    assert Store(place.results).record(trial.id) is None


def test_failed_trial_may_be_run_again(place: Place) -> None:
    trial = trial_of()
    with pytest.raises(InputError):
        job.run(trial, replace(place, data=None))

    job.run(trial, place)

    assert Store(place.results).state(trial.id) == "done"


def message_of(trial: Trial, place: Place) -> str:
    with pytest.raises(InputError) as caught:
        job.run(trial, place)
    return str(caught.value)


def test_missing_data_folder_is_told(place: Place, tmp_path: Path) -> None:
    message = message_of(trial_of(), replace(place, data=tmp_path / "cub"))

    reason = f"no CUB-200-2011 in '{tmp_path}/cub' (images.txt is missing)"
    assert message == f"{reason}; data must be the folder that holds images.txt"


def test_weights_of_another_network_are_told(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(8, 3, 3, 3)}, path)
    trial = trial_of(weights=files.sha256(path))

    message = message_of(trial, replace(place, weights=path))

    assert message.startswith("other.safetensors has the weights of another network; missing: conv1.0.weight, ")
    assert message.endswith("; unexpected: features.0.weight")


def test_weights_other_than_the_trial_asks_for_are_told(place: Place, tmp_path: Path) -> None:
    trial = trial_of(epochs=0)
    net, _ = network.network(trial, place, 3)
    path = tmp_path / "own.safetensors"
    save_file({name: value.contiguous() for name, value in net.backbone.body.state_dict().items()}, path)
    asked = "0" * 64

    message = message_of(replace(trial, weights=asked), replace(place, weights=path))

    assert message == f"own.safetensors has sha256 {files.sha256(path)}, but the trial asks for {asked}"


def test_missing_weights_file_is_told(place: Place) -> None:
    message = message_of(trial_of(weights="0" * 64), place)

    assert message == f"the trial starts from the weights file of sha256 {'0' * 64}; name it with weights=FILE"


@pytest.mark.parametrize(
    ("setting", "start"),
    [
        ({"device": "cuda"}, "device=cuda, but torch "),
        ({"gpus": 1}, "the job asked for 1 GPU(s), but torch "),
    ],
)
def test_device_that_is_not_there_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any], start: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert message_of(trial_of(), replace(place, **setting)).startswith(start)


def test_job_that_asked_for_a_gpu_runs_without_one_where_the_user_says_so(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert job.run(trial_of(epochs=0), replace(place, gpus=1, device="cpu"))


def test_truncated_image_loses_nothing(place: Place, trained: Trained, tmp_path: Path) -> None:
    data = fake_data.cub(tmp_path / "cub", per_class=8)
    image = max((data / "images").rglob("*.jpg"))
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    trial = trained[0]

    message = message_of(trial, replace(place, data=data))
    image.write_bytes(whole)
    record = job.run(trial, replace(place, data=data))

    assert image.name in message
    assert record["weights_digest"] == trained[2]["weights_digest"]


ALONE = {"backbone": "timm:test_resnet", "image_size": 32, "held_out": 0}
"""At 32 pixels its last map is one value, of which batch normalisation knows no spread; there are 12 images."""

LONELY = """
from pydantic.dataclasses import dataclass
from torch import nn

from wsolbench.method import GapHead, Method, Output
from wsolbench.plugins import OPTIONS


class Head(GapHead):
    def __init__(self, channels, num_classes):
        super().__init__(channels, num_classes)
        self.norm = nn.BatchNorm1d(num_classes)

    def forward(self, maps, labels):
        found = super().forward(maps, labels)
        return Output(self.norm(found.logits), **found.maps)


@dataclass(frozen=True, config=OPTIONS)
class Lonely(Method):
    def head(self, backbone, num_classes):
        return Head(backbone.channels, num_classes)


METHOD = Lonely
"""


def test_code_of_the_submission_has_its_commit_and_changed_code_that_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "commit", lambda: "now+")

    submitted = job._code(Order(code=source.digest(), commit="then"))
    changed = job._code(Order(code="another", commit="then"))

    assert (submitted["commit"], submitted["code_changed"]) == ("then", False)
    assert (changed["commit"], changed["code_changed"]) == ("now+", True)


@pytest.mark.parametrize("batch_size", [1, 11])
@pytest.mark.parametrize("method", [{"method": "cam"}, {"method": "adl", "points": ("act1",)}], ids=["cam", "adl"])
def test_a_last_batch_of_one_image_that_cannot_train_is_told_before_training(
    place: Place, method: dict[str, Any], batch_size: int
) -> None:
    trial = trial_of(**ALONE, **method, batch_size=batch_size)

    message = message_of(trial, place)

    start = f"batch_size {batch_size} leaves a batch of one of the 12 training images, which this network cannot train "
    assert message.startswith(f"{start}on (Expected more than 1 value per channel when training, got input size ")
    assert message.endswith("); take another batch_size")
    assert Store(place.results).epochs(trial.id) == []
    with pytest.raises(InputError, match="leaves a batch of one"):
        job.check(trial, place)


def test_a_head_that_cannot_train_on_one_image_is_told_too(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = method_folder(tmp_path / "methods", lonely=LONELY)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])

    assert "leaves a batch of one" in message_of(trial_of(method="lonely", batch_size=11, held_out=0), place)


@pytest.mark.parametrize("setting", [{"batch_size": 5}, {"image_size": 64}, {"epochs": 0}, {"backbone": "tiny"}])
def test_a_last_batch_that_can_train_is_no_matter(place: Place, setting: dict[str, Any]) -> None:
    job.check(trial_of(**{**ALONE, "method": "cam", "batch_size": 11, **setting}), place)


def test_a_head_that_looks_at_numbers_may_train_on_one_image(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = LONELY.replace("self.norm(found.logits)", "found.logits * found.logits.detach().numpy().max()")
    folder = method_folder(tmp_path / "methods", looking=looking)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])

    job.check(trial_of(method="looking", batch_size=11, held_out=0), place)


def test_place_without_room_to_write_is_told(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "results").touch()

    message = message_of(trained[0], replace(trained[1], results=tmp_path / "results"))

    assert message.startswith(f"cannot write to the results folder '{tmp_path}/results': ")


def test_broken_record_is_told_and_kept(trained: Trained, tmp_path: Path) -> None:
    trial, place, _ = trained
    results = tmp_path / "results"
    shutil.copytree(place.results, results)
    path = results / trial.id / "record.json"
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(store.BrokenRecordError, match="run the trial again with --fresh"):
        job.run(trial, replace(place, results=results))

    assert path.exists()
