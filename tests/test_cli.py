import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from tests import fake_data
from tests.conftest import NAN_METHOD, QUICK, Command, method_folder, until, words
from tests.fake_slurm import FakeSlurm
from wsolbench import cli, datasets, job, methods, plugins, protocols, recipe, trial
from wsolbench.dataset import SplitName
from wsolbench.errors import InputError
from wsolbench.place import Place
from wsolbench.store import COUNTED, Store

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = sorted(command.name or command.callback.__name__ for command in cli.app.registered_commands)  # type: ignore[union-attr]
ID = recipe.complete(QUICK).id


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder: what a command leaves in the current one does no harm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WSOLBENCH_RESULTS", raising=False)


@pytest.fixture
def quick(cub: Path) -> list[str]:
    """The words of a trial that takes no time."""
    return [*words(), f"data={cub}"]


def sweep_file(folder: Path, text: str = "grid: {seed: [0, 1]}\n") -> Path:
    base = ", ".join(f"{key}: {value}" for key, value in QUICK.items())
    path = folder / "mine.yaml"
    path.write_text(f"base: {{{base}}}\n{text}", encoding="utf-8")
    return path


# Help


def test_no_words_print_the_help(wsolbench: Command) -> None:
    ended = wsolbench()

    assert (ended.code, "Usage: " in ended.out + ended.err) == (2, True)
    assert all(command in ended.out + ended.err for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(wsolbench: Command, command: str) -> None:
    ended = wsolbench(command, "--help")

    summary = ended.out.split("\n\n")[1].strip()
    assert ended.code == 0
    assert len(summary) > 20


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command: str) -> None:
    group = typer.main.get_command(cli.app)

    options = [p for p in group.commands[command].params if p.param_type_name == "option"]  # type: ignore[attr-defined]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"wsolbench {command}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("word", ["rnu", "--nonsense"])
def test_unknown_command_is_a_mistake_of_usage(wsolbench: Command, word: str) -> None:
    ended = wsolbench(word)

    assert ended.code == 2
    assert "Traceback" not in ended.err


def test_help_does_without_a_folder_of_methods_that_is_not_there(start: Callable[..., Any]) -> None:
    asked = {"WSOLBENCH_METHODS": "/nowhere"}
    helped, ran = start("--help", **asked), start("run", *words(method="mine"), **asked)

    for process, code in ((helped, 0), (ran, 2)):
        _, said = process.communicate(timeout=60)
        assert (process.returncode, "Traceback" in said) == (code, False), said
    assert said == "error: WSOLBENCH_METHODS names '/nowhere', which is no folder\n"


# list


def test_list_of_what_there_is_none_of_names_the_lists(wsolbench: Command) -> None:
    ended = wsolbench("list", "figure")

    assert ended.code == 2
    assert "no list of 'figure', did you mean 'figures'? There are: methods, backbones, " in ended.err


def test_list_names_everything(wsolbench: Command) -> None:
    ended = wsolbench("list")

    names = [name for package in recipe.KINDS.values() for name in plugins.names(package)]
    assert ended.code == 0
    assert {*names, "drop-rate", "table1"} <= {line.split()[0] for line in ended.out.splitlines()}


def test_list_has_options_and_feature_points(wsolbench: Command) -> None:
    lines = {line.split()[0]: line for line in wsolbench("list").out.splitlines()}

    assert "drop_rate=0.75" in lines["adl"]
    assert "pool1 conv2" in lines["tiny"]


def test_list_as_json_is_one_object(wsolbench: Command) -> None:
    found = json.loads(wsolbench("list", "methods", "--json").out)

    assert list(found) == ["methods"]
    assert list(found["methods"]) == plugins.names(methods)


def test_list_has_fields_protocols_and_metrics(wsolbench: Command) -> None:
    found = json.loads(wsolbench("list", "--json").out)

    assert list(found["fields"]) == list(trial.FIELDS)
    assert list(found["protocols"]) == protocols.names()
    assert list(found["metrics"]) == [*protocols.METRICS, *COUNTED]
    assert "threshold held_out" in found["protocols"][protocols.DEFAULT]
    assert found["fields"]["lr_steps"] == "after so many epochs the rates are multiplied by lr_factor"
    assert all(line.endswith(".") for line in found["metrics"].values())


def test_list_of_one_data_set_says_what_its_folder_holds(wsolbench: Command) -> None:
    ended = wsolbench("list", "datasets", "wsolevaluation")

    assert ended.code == 0
    assert "`data` holds metadata/ and dataset/" in ended.out
    assert "collection       the folder of metadata/, such as CUB" in ended.out


def test_list_of_a_network_by_its_variant_has_its_options(wsolbench: Command) -> None:
    assert (
        "output_stride    by default 32; of the last feature map" in wsolbench("list", "backbones", "timm:resnet18").out
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["datasets", "cup"], "no dataset 'cup', did you mean 'cub'?"),
        (["metrics", "top1_loca"], "no 'top1_loca' in metrics, did you mean 'top1_loc'?"),
        (["all", "cub"], "in which list is 'cub'? Such as `wsolbench list datasets cub`"),
    ],
)
def test_list_of_what_is_not_there_is_a_mistake(wsolbench: Command, words: list[str], said: str) -> None:
    ended = wsolbench("list", *words)

    assert ended.code == 2
    assert said in ended.err


def test_a_data_set_without_its_folder_is_a_mistake_of_usage(wsolbench: Command) -> None:
    ended = wsolbench("data", "verify", "cub")

    assert (ended.code, ended.out) == (2, "")
    assert "cub needs data=FOLDER" in ended.err


def test_list_finds_the_sweeps_of_the_current_folder(wsolbench: Command, tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "own.yaml").write_text("# What I try\n", encoding="utf-8")

    assert "own" in wsolbench("list", "sweeps").out


# run


def test_run_prints_one_object(wsolbench: Command, quick: list[str]) -> None:
    ended = wsolbench("run", *quick, "--json")

    found = json.loads(ended.out)
    assert ended.code == 0
    assert list(found) == ["id", "state", "cached", "protocol", "metrics"]
    assert (found["id"], found["state"], found["cached"]) == (ID, "done", False)
    assert {"top1_clas", "gt_known_loc", "top1_loc"} <= found["metrics"].keys()


def test_run_says_each_epoch_on_stderr(wsolbench: Command, quick: list[str]) -> None:
    lines = wsolbench("run", *quick, "--json").err.splitlines()

    assert [line.split("  ")[0] for line in lines if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]


def test_second_run_prints_the_stored_result(wsolbench: Command, quick: list[str]) -> None:
    first = json.loads(wsolbench("run", *quick, "--json").out)

    again = wsolbench("run", *quick, "--json")

    assert again.code == 0
    assert json.loads(again.out) == {**first, "cached": True}


def test_fresh_run_has_bit_identical_metrics(wsolbench: Command, quick: list[str], tmp_path: Path) -> None:
    first = json.loads(wsolbench("run", *quick, "--json").out)
    kept = Store(tmp_path / "results")
    before = kept.record(ID) or {}

    again = json.loads(wsolbench("run", *quick, "--fresh", "--json").out)

    assert again == first
    assert (kept.record(ID) or {})["weights_digest"] == before["weights_digest"]


def test_fresh_run_keeps_the_old_record(wsolbench: Command, quick: list[str], tmp_path: Path) -> None:
    wsolbench("run", *quick)
    before = (tmp_path / "results" / ID / "record.json").read_bytes()

    wsolbench("run", *quick, "--fresh")

    assert (tmp_path / "results" / ID / "aside" / "0001" / "record.json").read_bytes() == before
    assert (tmp_path / "results" / ID / "aside" / "0001" / "attempts" / "0001" / "exit.json").exists()
    assert len(Store(tmp_path / "results").attempts(ID)) == 1


def test_broken_record_is_told_and_fresh_repairs_it(wsolbench: Command, quick: list[str], tmp_path: Path) -> None:
    wsolbench("run", *quick)
    path = tmp_path / "results" / ID / "record.json"
    path.write_text("{}", encoding="utf-8")

    told, repaired = wsolbench("run", *quick), wsolbench("run", *quick, "--fresh")

    assert (told.code, repaired.code) == (2, 0)
    assert told.err.startswith("error: results/") or told.err.startswith(f"error: {path}")
    assert "--fresh" in told.err
    assert Store(tmp_path / "results").state(ID) == "done"


def test_metrics_are_printed_plainly(wsolbench: Command, quick: list[str]) -> None:
    rows = dict(line.split() for line in wsolbench("run", *quick).out.splitlines())

    assert rows["id"] == ID
    assert 0 <= float(rows["top1_clas"]) <= 100


def test_results_go_where_they_are_wanted(
    wsolbench: Command, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wsolbench("run", *quick, "--results", "a/b")
    monkeypatch.setenv("WSOLBENCH_RESULTS", str(tmp_path / "c"))
    wsolbench("run", *quick)

    assert [Store(tmp_path / name).state(ID) for name in ("a/b", "c", "results")] == ["done", "done", "new"]


def test_empty_value_counts_as_not_given(wsolbench: Command, quick: list[str]) -> None:
    found = json.loads(wsolbench("run", *quick, "gamma=", "weight_decay=", "--json").out)

    assert found["id"] == ID


@pytest.mark.parametrize(
    ("changed", "messages"),
    [
        (["method=adll"], ["no method 'adll', did you mean 'adl'? There are: acol, adl, cam, "]),
        (["gama=0.8"], ["no field or option 'gama', did you mean 'gamma'? There are: dataset, backbone, method, "]),
        (["drop_rate=1.5"], ["drop_rate must be at most 1, not 1.5"]),
        (["points=[pool5]"], ["no feature point 'pool5'; this backbone has: conv1, pool1, "]),
        (["points=pool1"], ["points must be a list, not 'pool1'"]),
        (["lr=fast"], ["lr must be a number, not 'fast'"]),
        (["lr=.inf"], ["lr: '.inf': .inf is no finite number"]),
        (["lr=1e999"], ["lr: '1e999': 1e999 is too large for a number"]),
        (["seed=" + "9" * 5000], ["seed: '999"]),
        (["epochs=2.0"], ["epochs must be a whole number, not 2.0"]),
        (["data=/nowhere"], ["no folder '/nowhere'; data is the folder of the data set"]),
        (["weights=/nowhere.pt"], ["no weights file '/nowhere.pt'; weights is none, imagenet, or a .safetensors, "]),
        (["weights=imagenet21k"], ["weights must be none, imagenet or the sha256 of a file, not 'imagenet21k'"]),
        (["device=tpu"], ["device must be auto, cpu or cuda, not 'tpu'"]),
        (["workers=-1"], ["workers must be a number of processes, 0 or more, not -1"]),
        (["gamma"], ["'gamma' is no KEY=VALUE, such as epochs=2"]),
        (["=3"], ["'=3' is no KEY=VALUE, such as epochs=2"]),
        (["gamma=0.5", "gamma=0.6"], ["gamma is given twice"]),
        (["points=[pool1"], ["points: '[pool1': "]),
        (["méthode=ädl"], ["no field or option 'méthode'"]),
        (["epochs=-1", "lr=0", "gama=1"], ["no field or option 'gama'", "epochs must be ", "lr must be more than 0"]),
        (["lr=[1", "epochs=-1", "gamma"], ["lr: '[1': expected ',' or ']'", "'gamma' is no ", "epochs must be "]),
        (["method=[adl", "workers={", "lr=0"], ["method: '[adl': ", "workers: '{': ", "lr must be more than 0"]),
        (["data=/nowhere", "weights=/nowhere.pt", "device=tpu", "workers=-1", "protocol=x", "lr=0"],
         ["no folder", "no weights file", "device must", "workers must", "no protocol 'x'", "lr must be more than 0"]),
    ],
)  # fmt: skip
def test_mistake_is_told_and_exits_2(
    wsolbench: Command, cub: Path, changed: list[str], messages: list[str], tmp_path: Path
) -> None:
    keys = {word.partition("=")[0] for word in changed}
    kept = [word for word in [*words(), f"data={cub}"] if word.partition("=")[0] not in keys]

    ended = wsolbench("run", *kept, *changed)

    assert (ended.code, ended.out) == (2, "")
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == len(messages), ended.err
    assert all(line.startswith(f"error: {message}") for line, message in zip(lines, messages, strict=True)), ended.err
    assert not (tmp_path / "results").exists()


def test_run_without_words_says_what_is_missing(wsolbench: Command) -> None:
    ended = wsolbench("run")

    assert ended.code == 2
    starts = [f"error: {kind} is missing; there are: " for kind in ("dataset", "backbone", "method")]
    assert all(line.startswith(start) for line, start in zip(ended.err.splitlines(), starts, strict=True))


def test_truncated_image_exits_2_and_names_the_image(wsolbench: Command, tmp_path: Path) -> None:
    data = fake_data.cub(tmp_path / "cub", per_class=8)
    image = max((data / "images").rglob("*.jpg"))
    image.write_bytes(image.read_bytes()[:200])

    ended = wsolbench("run", *words(), f"data={data}")

    assert ended.code == 2
    assert ended.err.splitlines()[-1] == f"error: files that are no images; fetch them again (1): {image} (OSError)"
    assert not (tmp_path / "results").exists()


def test_box_outside_its_image_exits_2_and_names_the_line(wsolbench: Command, tmp_path: Path) -> None:
    data = fake_data.cub(tmp_path / "cub", per_class=8)
    fake_data.edit(data / "bounding_boxes.txt", 4, "4 900.0 900.0 10.0 10.0")

    ended = wsolbench("run", *words(), f"data={data}")

    assert ended.code == 2
    place = "bounding_boxes.txt:4 '4 900.0 900.0 10.0 10.0'"
    assert ended.err.splitlines()[-1] == f"error: boxes wholly outside their image (1): {place}"


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_protocol_without_held_out_images_is_told_before_anything_is_written(
    wsolbench: Command, tmp_path: Path, quick: list[str], command: str
) -> None:
    asked = quick if command == "run" else [sweep_file(tmp_path), quick[-1], "--cluster", "debug"]

    ended = wsolbench(command, *asked, "held_out=0", f"protocol={protocols.DEFAULT}")

    assert ended.code == 2
    assert ended.err.splitlines()[-1].endswith(
        "and there are none; hold some out, such as held_out=0.1, or take another protocol"
    )
    assert not (tmp_path / "results").exists()


def test_a_protocol_that_finished_trials_cannot_be_scored_by_is_told_before_the_first_job(
    wsolbench: Command, tmp_path: Path, cub: Path
) -> None:
    asked = ["sweep", sweep_file(tmp_path), f"data={cub}", "held_out=0", "--cluster", "debug"]
    wsolbench(*asked)
    before = sorted((tmp_path / "results").glob("*/*"))

    ended = wsolbench(*asked, f"protocol={protocols.DEFAULT}")

    assert ended.code == 2
    assert sorted((tmp_path / "results").glob("*/*")) == before


@pytest.mark.parametrize("key", ["data", "weights"])
def test_a_path_that_no_system_has_is_told(wsolbench: Command, quick: list[str], key: str) -> None:
    others = [word for word in quick if not word.startswith(f"{key}=")]

    ended = wsolbench("run", *others, f"{key}={'a' * 300}.pt")

    assert ended.code == 4
    assert "File name too long" in ended.err
    assert "Traceback" not in ended.err


def test_results_folder_that_is_a_file_exits_2(wsolbench: Command, quick: list[str], tmp_path: Path) -> None:
    (tmp_path / "results").touch()

    ended = wsolbench("run", *quick)

    assert ended.code == 2
    assert "cannot write to the results folder 'results': " in ended.err


def test_loss_that_is_no_number_exits_1(
    wsolbench: Command, cub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = method_folder(tmp_path / "own", nan_in_epoch_2=NAN_METHOD)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])

    ended = wsolbench("run", *words(method="nan_in_epoch_2"), f"data={cub}", "--json")

    assert (ended.code, ended.out) == (1, "")
    assert "failed: the loss is nan in the batch of images " in ended.err
    assert Store(tmp_path / "results").attempts(Store(tmp_path / "results").ids()[0])[0].exit()["kind"] == "diverged"


def test_control_c_exits_130(wsolbench: Command, quick: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "run", interrupted)

    ended = wsolbench("run", *quick)

    assert ended.code == 130
    assert "interrupted; run the same command again to go on from the last checkpoints" in ended.err


# sweep


def test_sweep_runs_its_trials(wsolbench: Command, cub: Path, tmp_path: Path) -> None:
    ended = wsolbench("sweep", sweep_file(tmp_path), f"data={cub}", "--cluster", "debug")

    assert ended.code == 0, ended.err
    assert "mine: 2 trials: 2 new" in ended.err
    assert len(Store(tmp_path / "results").records()) == 2


def test_second_sweep_says_that_all_is_done(wsolbench: Command, cub: Path, tmp_path: Path) -> None:
    words_ = ["sweep", sweep_file(tmp_path), f"data={cub}", "--cluster", "debug"]
    wsolbench(*words_)

    ended = wsolbench(*words_)

    assert (ended.code, "mine: 2 trials: 2 done" in ended.err) == (0, True)
    assert all(len(Store(tmp_path / "results").attempts(i)) == 1 for i in Store(tmp_path / "results").ids())


def test_sweep_and_run_share_their_results(wsolbench: Command, cub: Path, tmp_path: Path, quick: list[str]) -> None:
    wsolbench("run", *quick)

    ended = wsolbench("sweep", sweep_file(tmp_path), f"data={cub}", "--cluster", "debug")

    assert "mine: 2 trials: 1 done, 1 new" in ended.err or "mine: 2 trials: 1 new, 1 done" in ended.err


def test_dry_run_trains_nothing(wsolbench: Command, cub: Path, tmp_path: Path) -> None:
    ended = wsolbench("sweep", sweep_file(tmp_path), f"data={cub}", "-n")

    assert ended.code == 0
    assert [line.split()[1] for line in ended.out.splitlines()] == ["new", "new"]
    assert not (tmp_path / "results").exists()


def test_seeds_stand_for_those_of_the_file(wsolbench: Command, tmp_path: Path) -> None:
    file = sweep_file(tmp_path, "seeds: [0]\ntrials: [{method: cam}]\n")

    found = [wsolbench("sweep", file, "-n", "--seeds", text).out.count("\n") for text in ("0-4", "7", "1,3,9")]

    assert found == [5, 1, 3]


@pytest.mark.parametrize("seeds", ["", "a", "4-0", "1,,2", "-1"])
def test_wrong_seeds_are_told(wsolbench: Command, tmp_path: Path, seeds: str) -> None:
    ended = wsolbench("sweep", sweep_file(tmp_path), "-n", f"--seeds={seeds}")

    assert ended.code == 2
    assert f"--seeds must be like 0-4 or 0,1,2, not {seeds!r}" in ended.err


def test_wrong_flags_words_and_settings_of_a_sweep_are_told_at_once(wsolbench: Command, tmp_path: Path) -> None:
    file = sweep_file(tmp_path, "trials: [{method: camm}]\n")

    ended = wsolbench("sweep", file, "device=gpu", "--retry", "faild", "--seeds", "a")

    assert ended.code == 2
    told = ("device must be ", "--retry knows ", "--seeds must be ", "no method 'camm'")
    assert [sum(each in line for line in ended.err.splitlines()) for each in told] == [1, 1, 1, 1], ended.err
    assert not (tmp_path / "results").exists()


def test_seeds_without_end_are_refused(wsolbench: Command, tmp_path: Path) -> None:
    ended = wsolbench("sweep", sweep_file(tmp_path), "-n", f"--seeds=0-{'9' * 100}")

    assert ended.code == 2
    assert "are more than 10,000 seeds" in ended.err


def test_weights_of_no_known_kind_are_refused_before_the_first_trial(wsolbench: Command, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"no ending says what this is")

    ended = wsolbench("sweep", sweep_file(tmp_path), f"weights={tmp_path / 'weights'}", "--results", tmp_path / "kept")

    assert ended.code == 2
    assert "weights must be imagenet or a .safetensors, .pt or .pth file, not " in ended.err
    assert not (tmp_path / "kept").exists()


def test_thousands_of_mistakes_are_told_as_far_as_anybody_reads(wsolbench: Command, tmp_path: Path) -> None:
    file = sweep_file(tmp_path, "trials:\n" + "".join(f"  - {{sed: {n}}}\n" for n in range(200)))

    ended = wsolbench("sweep", file, "-n")

    assert ended.code == 2
    assert ended.err.count("error: ") == 50
    assert ended.err.endswith("and 150 more\n")


def test_sweep_here_leaves_the_jobs_of_a_cluster_alone_and_exits_3(
    wsolbench: Command, cub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    file = sweep_file(tmp_path)
    submitted = wsolbench("sweep", file, f"data={cub}", "--cluster", "slurm", "-y")

    ended = wsolbench("sweep", file, f"data={cub}", "--cluster", "debug")

    assert (submitted.code, ended.code) == (0, 3)
    assert ended.err.count("left to the cluster: ") == 2
    assert "as job 100_1 (Resources); to run it here `wsolbench cancel " in ended.err
    assert [job["state"] for job in fake.jobs.values()] == ["PENDING", "PENDING"]


def test_failed_trial_exits_1_and_is_named(
    wsolbench: Command, cub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = method_folder(tmp_path / "own", nan_in_epoch_2=NAN_METHOD)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    file = sweep_file(tmp_path, "trials: [{method: nan_in_epoch_2}, {method: cam}]\n")

    ended = wsolbench("sweep", file, f"data={cub}", "--cluster", "debug")

    assert ended.code == 1
    assert "DivergedError: the loss is nan in the batch of images " in ended.err
    assert len(Store(tmp_path / "results").records()) == 1


def test_missing_data_are_told_before_the_first_trial(wsolbench: Command, tmp_path: Path) -> None:
    ended = wsolbench("sweep", sweep_file(tmp_path), f"data={tmp_path}", "--cluster", "debug")

    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith(f"error: no CUB-200-2011 in '{tmp_path}' (images.txt is missing)")
    assert Store(tmp_path / "results").ids() == []


def test_mistakes_of_words_and_of_a_sweeps_file_are_told_together(wsolbench: Command, tmp_path: Path) -> None:
    file = sweep_file(tmp_path, "grid:\n  gamma: [fast]\n")

    ended = wsolbench("sweep", file, "data=/nowhere", "device=tpu", "lr=[1", "epochs=-1", "--cluster", "debug")

    assert ended.code == 2
    told = ["lr: '[1': ", "no folder '/nowhere'", "device must be ", f"{file}:", "epochs must be at least 0, not -1"]
    lines = ended.err.splitlines()
    assert len(lines) == len(told), ended.err
    assert all(line.startswith(f"error: {start}") for line, start in zip(lines, told, strict=True)), ended.err


def test_mistakes_of_a_sweep_are_told_with_file_and_line(wsolbench: Command, tmp_path: Path) -> None:
    file = sweep_file(tmp_path, "grid:\n  gamma: [0.5]\n  gamma: [0.6]\n")

    ended = wsolbench("sweep", file)

    assert ended.code == 2
    assert ended.err == f"error: {file}:4: repeated key 'gamma', first on line 3\n"


def test_unknown_sweep_is_told_with_the_nearest(wsolbench: Command) -> None:
    ended = wsolbench("sweep", "drop-rat")

    assert ended.code == 2
    assert ended.err.startswith("error: no file 'drop-rat', did you mean 'drop-rate'? The sweeps here are: ")


def test_results_of_a_sweep_that_are_a_file_exit_2(wsolbench: Command, cub: Path, tmp_path: Path) -> None:
    (tmp_path / "results").touch()

    ended = wsolbench("sweep", sweep_file(tmp_path), f"data={cub}", "--cluster", "debug")

    assert ended.code == 2
    assert "cannot write to the results folder" in ended.err


# status


def test_status_says_how_far_each_trial_is(wsolbench: Command, quick: list[str]) -> None:
    wsolbench("run", *quick)

    ended = wsolbench("status")

    assert ended.code == 0
    assert ended.out.split()[:4] == [ID, "done", "2", "2"]
    assert ended.err == "1 done\n"


def test_status_as_json_is_a_list(wsolbench: Command, quick: list[str]) -> None:
    wsolbench("run", *quick)

    (line,) = json.loads(wsolbench("status", "--json").out)

    assert (line["id"], line["state"], line["epoch"], line["epochs"]) == (ID, "done", 2, 2)


def test_status_of_a_sweep_has_its_trials_only(wsolbench: Command, quick: list[str], tmp_path: Path) -> None:
    wsolbench("run", *quick)

    ended = wsolbench("status", sweep_file(tmp_path, "grid: {seed: [1, 2]}\n"))

    assert [line.split()[1] for line in ended.out.splitlines()] == ["new", "new"]


def test_status_of_one_trial(wsolbench: Command, quick: list[str]) -> None:
    wsolbench("run", *quick)

    assert wsolbench("status", ID).out.split()[:2] == [ID, "done"]


def test_status_of_nothing_says_so(wsolbench: Command) -> None:
    ended = wsolbench("status")

    assert (ended.code, ended.out, ended.err) == (0, "", "no trial\n")


def test_status_names_what_failed(wsolbench: Command, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        job.run(recipe.complete(QUICK), Place(tmp_path / "results", data=Path("/nowhere")))

    line = wsolbench("status").out

    assert line.split()[1] == "failed"
    assert "no CUB-200-2011 in '/nowhere'" in line


def test_status_counts_the_epochs_of_all_attempts(wsolbench: Command, cub: Path, tmp_path: Path) -> None:
    trial, place = recipe.complete(QUICK), Place(tmp_path / "results", data=cub)

    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(trial, place, stop)
    Store(place.results).attempt(trial.id)

    (line,) = json.loads(wsolbench("status", "--json").out)

    assert (line["state"], line["epoch"]) == ("lost", 1)


def test_status_of_results_that_are_a_file_is_nothing(wsolbench: Command, tmp_path: Path) -> None:
    (tmp_path / "results").touch()

    assert wsolbench("status").code == 0


# report


def test_report_without_results_names_what_is_missing(wsolbench: Command) -> None:
    ended = wsolbench("report", "table1")

    assert ended.code in {2, 3}
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("command", ["report", "figure"])
def test_all_files_that_are_not_there_are_told_at_once(wsolbench: Command, command: str) -> None:
    ended = wsolbench(command, "one", "two")

    assert ended.code == 2
    assert [line.partition(".")[0] for line in ended.err.splitlines()] == [
        "error: no file 'one'",
        "error: no file 'two'",
    ]


@pytest.mark.parametrize("command", ["report", "figure"])
def test_wrong_words_files_and_formats_are_told_at_once(wsolbench: Command, command: str) -> None:
    ended = wsolbench(command, "one", "protocol=two", "--format", "three")

    assert ended.code == 2
    assert sorted(line.partition(".")[0] for line in ended.err.splitlines()) == [
        "error: no file 'one'",
        "error: no format 'three'",
        "error: no protocol 'two'",
    ]


def test_mistakes_of_all_reports_are_told_at_once(wsolbench: Command, tmp_path: Path) -> None:
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for file in files:
        file.write_text("titel: x\n", encoding="utf-8")

    ended = wsolbench("report", *files)

    assert ended.code == 2
    assert all(f"error: {file}:1: unknown key 'titel'" in ended.err for file in files)


def test_report_needs_a_name(wsolbench: Command) -> None:
    ended = wsolbench("report", "dataset=cub")

    assert ended.code == 2
    assert ended.err.startswith("error: name a report; there are: ")


# Kills


def digest_of(results: Path) -> str:
    (record,) = Store(results).records()
    found: str = record["weights_digest"]
    return found


@pytest.mark.faults
def test_killed_training_goes_on_to_the_same_weights(
    start: Callable[..., Any], wsolbench: Command, cub: Path, tmp_path: Path
) -> None:
    trial = recipe.complete({**QUICK, "epochs": 60})
    whole = job.run(trial, Place(tmp_path / "whole", data=cub))
    asked, kept = ["run", *words(epochs=60), f"data={cub}"], Store(tmp_path / "results")

    process = start(*asked)
    until(lambda: len(kept.epochs(trial.id)) >= 3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    seen = len(kept.epochs(trial.id))
    ended = wsolbench(*asked)

    assert 3 <= seen < 60
    assert f"epoch {seen + 1}/60" in ended.err or f"epoch {seen + 2}/60" in ended.err
    assert digest_of(kept.folder) == whole["weights_digest"]


@pytest.mark.faults
def test_twenty_kills_do_not_change_the_weights(start: Callable[..., Any], cub: Path, tmp_path: Path) -> None:
    trial = recipe.complete({**QUICK, "epochs": 200})
    whole = job.run(trial, Place(tmp_path / "whole", data=cub))
    asked, kept = ["run", *words(epochs=200), f"data={cub}"], Store(tmp_path / "results")

    for kill in range(20):
        process, seen = start(*asked), len(kept.epochs(trial.id))
        until(lambda seen=seen: len(kept.epochs(trial.id)) > seen)  # type: ignore[misc]
        time.sleep(0.003 * kill)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    last = start(*asked)

    assert last.wait(120) == 0, last.stderr.read()
    assert len(kept.attempts(trial.id)) == 21
    assert digest_of(kept.folder) == whole["weights_digest"]


def test_a_mistake_does_not_cost_the_stored_result(wsolbench: Command, quick: list[str], tmp_path: Path) -> None:
    wsolbench("run", *quick)
    others = [word for word in quick if not word.startswith("data=")]

    ended = wsolbench("run", *others, f"data={tmp_path}", "--fresh")

    assert ended.code == 2
    assert Store(tmp_path / "results").state(ID) == "done"


def test_a_method_that_cannot_be_imported_is_named_and_the_others_are_listed(
    wsolbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = method_folder(tmp_path / "mine", torn="def (")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])

    ended = wsolbench("list", "methods")

    assert ended.code == 0
    assert "torn             method torn cannot be imported: SyntaxError" in ended.out
    assert "points, drop_rate=0.75" in ended.out


def test_a_finished_sweep_says_what_to_try_next(wsolbench: Command, tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("trials: [{method: cam}]\n", encoding="utf-8")

    ended = wsolbench(
        "sweep",
        path,
        *words(method="cam"),
        f"data={fake_data.cub(tmp_path / 'cub', per_class=8)}",
        "--cluster",
        "debug",
        "--results",
        "my results",
    )

    assert ended.code == 0
    last = ended.err.splitlines()[-1]
    assert last.startswith("next: wsolbench sweep ")
    assert last.endswith(" --results 'my results'")


def test_a_folder_that_cannot_be_written_is_an_error_of_the_environment(wsolbench: Command, quick: list[str]) -> None:
    wsolbench("run", *quick)

    ended = wsolbench("report", "methods", "--out", "/proc/none")

    assert (ended.code, ended.err.splitlines()[-1].startswith("error: /proc/none")) == (4, True)


def score_maps_of(cub: Path, folder: Path, *splits: SplitName) -> Path:
    """The true box of each image of these splits, filled."""
    for split in (plugins.make(datasets, "cub", {}).split(name, cub) for name in splits):
        for name, (width, height), boxes in zip(split.ids, split.sizes.tolist(), split.boxes, strict=True):
            x0, y0, x1, y1 = boxes[0].astype(int).tolist()
            score_map = np.zeros((height, width))
            score_map[y0:y1, x0:x1] = 1
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{name}.npy", score_map)
    return folder


def test_score_chooses_a_threshold_on_a_share_of_the_training_images(
    wsolbench: Command, cub: Path, tmp_path: Path
) -> None:
    folder = score_maps_of(cub, tmp_path / "maps", "train", "test")
    asked = (folder, "--dataset", "cub", "--data", cub, "--protocol", "wsolbench", "--out", tmp_path / "known.npz")

    ended = wsolbench("score", *asked, "--json")

    found = json.loads(ended.out)
    assert (ended.code, found["threshold_from"], found["normalised"]) == (0, "3 images of train", False)
    assert "score maps were taken as they are" in ended.err
    assert (found["metrics"]["gt_known_loc"], found["metrics"]["mean_iou"]) == (100, 100)
    with np.load(tmp_path / "known.npz") as known:
        assert len(known["ids"]) == found["images"] == len(known["iou"])


def test_score_without_maps_to_choose_on_names_them(wsolbench: Command, cub: Path, tmp_path: Path) -> None:
    folder = score_maps_of(cub, tmp_path / "maps", "test")

    ended = wsolbench("score", folder, "--dataset", "cub", "--data", cub, "--protocol", "wsolbench")

    assert ended.code == 2
    assert "no score map in" in ended.err


def test_mistakes_of_a_score_are_told_at_once(wsolbench: Command) -> None:
    ended = wsolbench("score", "maps", "--dataset", "cubb", "--protocol", "none", "--out", "known.txt")

    assert ended.code == 2
    told = ["no protocol 'none'", "known.txt must end in .npz", "no dataset 'cubb', did you mean 'cub'?"]
    assert all(f"error: {said}" in ended.err for said in told), ended.err


def test_no_mistake_of_a_score_hides_another(wsolbench: Command) -> None:
    ended = wsolbench("score", "--dataset", "cubb", "--protocol", "none", "-o", "size=[")

    assert ended.code == 2
    told = ["no protocol 'none'", "name a folder of score maps, or a --baseline", "no dataset 'cubb'", "size: '['"]
    assert [ended.err.count(f"error: {said}") for said in told] == [1, 1, 1, 1], ended.err


def test_score_refuses_to_choose_on_what_it_scores(wsolbench: Command, cub: Path) -> None:
    asked = ("--dataset", "cub", "--data", cub, "--protocol", "wsolbench", "--split", "train")

    ended = wsolbench("score", "--baseline", "centre", *asked)

    assert ended.code == 2
    assert "score another --split" in ended.err


@pytest.mark.parametrize("normalise", ["auto", "always", "never"])
def test_score_says_whether_maps_were_scaled(wsolbench: Command, cub: Path, tmp_path: Path, normalise: str) -> None:
    folder = score_maps_of(cub, tmp_path / "maps", "test")
    one = next(folder.rglob("*.npy"))
    np.save(one, 255 * np.load(one))

    ended = wsolbench("score", folder, "--dataset", "cub", "--data", cub, "--normalise", normalise, "--json")

    if normalise == "never":
        assert (ended.code, f"{one} (0 to 255)" in ended.err) == (2, True)
    else:
        assert (ended.code, json.loads(ended.out)["normalised"]) == (0, True)
        assert "every score map was scaled to [0, 1] by its own" in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("maps", "--baseline", "whole"), "name a folder of score maps, or a --baseline"),
        (("--baseline", "whole", "--protocol", "wsolbench", "--held-out", "maps"), "--held-out is for score maps"),
        (("maps", "--held-out", "maps"), "--held-out is for a protocol that chooses its threshold on held-out images"),
        (("maps", "--share", "0.2"), "--share is for a protocol that chooses its threshold"),
        (("--baseline", "whole", "--space", "input"), "--space is for score maps of a folder"),
        (("--baseline", "whole", "--normalise", "auto"), "--normalise is for score maps of a folder"),
        (("--baseline", "whole", "--out", "none/known.npz"), "no folder 'none' to write known.npz into"),
    ],
)
def test_score_refuses_words_that_would_do_nothing(
    wsolbench: Command, cub: Path, words: tuple[str, ...], said: str
) -> None:
    ended = wsolbench("score", *words, "--dataset", "cub", "--data", cub)

    assert (ended.code, said in ended.err) == (2, True)


@pytest.mark.parametrize("share", ["0", "-0.5", "1", "1.5", "nan", "inf"])
def test_score_refuses_a_share_that_is_none(wsolbench: Command, share: str) -> None:
    of = ("--dataset", "shapes", "--protocol", "wsolbench", "--share", share)

    ended = wsolbench("score", "--baseline", "centre", *of)

    assert ended.code == 2
    assert (
        ended.err
        == f"error: --share must be above 0 and below 1, not {share}: a share of each class's training images\n"
    )


def test_score_refuses_a_share_of_training_images_where_others_are_held_out(wsolbench: Command, tmp_path: Path) -> None:
    data = fake_data.wsolevaluation(tmp_path / "data")
    of = ("--dataset", "wsolevaluation", "-o", "collection=CUB", "--data", data)

    ended = wsolbench("score", "--baseline", "whole", *of, "--protocol", "wsolbench", "--share", "0.2")

    assert ended.code == 2
    assert ended.err == "error: --share is for data sets without held-out images, and this one has its own\n"


def test_score_without_maps_or_baseline_says_what_to_name(wsolbench: Command) -> None:
    assert "a folder of score maps, or a --baseline" in wsolbench("score", "--dataset", "shapes").err


def test_status_of_a_trial_shows_its_learning_rates(wsolbench: Command, trained: tuple[Any, Place, Any]) -> None:
    trial, place, record = trained
    pretrained, new = (group["parameters"] for group in record["parameter_groups"])

    ended = wsolbench("status", trial.id, "--results", place.results)

    assert ended.out.splitlines()[1:] == [
        f"  pretrained {pretrained:>11,} parameters at learning rate {trial.lr:g}",
        f"  new        {new:>11,} parameters at learning rate {trial.head_lr:g}",
    ]
