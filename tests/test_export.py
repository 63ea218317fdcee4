import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from tests.conftest import BACKBONES, QUICK, Command
from wsolbench import backbones, export, job, loop, methods, network, plugins, recipe
from wsolbench.batches import Batch, normalise
from wsolbench.errors import InputError
from wsolbench.export import Exported
from wsolbench.images import class_names, splits
from wsolbench.method import build
from wsolbench.place import Place
from wsolbench.store import Store
from wsolbench.trial import Trial

Trained = tuple[Trial, Place, dict[str, Any]]
OWN_HEAD = ("acol", "spg")
"""Methods whose score maps are computed in another way than CAM's; the others differ in training only."""


@pytest.fixture(scope="module")
def exported(trained: Trained) -> export.Export:
    """The network of the finished trial."""
    return export.export(trained[0].id, Place(trained[1].results))


def test_onnx_gives_the_logits_and_score_maps_of_the_evaluation(trained: Trained, exported: export.Export) -> None:
    trial, place, _ = trained
    test = splits(trial, place).test
    seen = [
        np.asarray(Image.fromarray(test.read(index)).resize((32, 32), Image.Resampling.BILINEAR))
        for index in range(len(test))
    ]
    images = np.stack(seen).transpose(0, 3, 1, 2).astype(np.float32) / 255
    session = onnxruntime.InferenceSession(exported.content, providers=["CPUExecutionProvider"])

    logits, maps = session.run(None, {"images": images, "labels": test.labels})

    stored = Store(place.results)
    known = stored.arrays(trial.id, "predictions.npz")["resize224/test/top5"]
    assert np.argsort(-logits, 1)[:, :1].tolist() == known[:, :1].tolist()
    expected = stored.arrays(trial.id, "scoremaps.npz")["resize224/test"]
    assert np.abs(maps - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_likeliest_class_is_mapped_where_no_label_is_known(exported: export.Export) -> None:
    session = onnxruntime.InferenceSession(exported.content, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((3, 3, 32, 32)).astype(np.float32)

    logits, of_none = session.run(None, {"images": images, "labels": np.array([-1, -1, -1])})
    _, of_likeliest = session.run(None, {"images": images, "labels": logits.argmax(1)})

    assert np.array_equal(of_none, of_likeliest)


def test_the_file_says_what_it_is(trained: Trained, exported: export.Export) -> None:
    trial, place, record = trained
    model = onnx.load_from_string(exported.content)

    told = {entry.key: entry.value for entry in model.metadata_props}

    onnx.checker.check_model(model, full_check=True)
    assert (told["trial"], told["method"], told["backbone"]) == (trial.id, trial.method, trial.backbone)
    assert json.loads(told["classes"]) == list(class_names(trial, place))
    assert float(told["threshold_pct"]) == record["results"]["wsolbench"]["threshold"]
    assert [output.name for output in model.graph.output] == ["logits", "score_maps"]


def untrained(backbone: str, method: str, side: int) -> Exported:
    """A network with the recipe's settings and random weights, of five classes."""
    settings = {"dataset": "shapes", "backbone": backbone, "method": method, "weights": "none", "image_size": side}
    return Exported(network.blank(recipe.complete(settings), 5)).eval()


@pytest.mark.parametrize(
    "method",
    [name if name in OWN_HEAD else pytest.param(name, marks=pytest.mark.full) for name in plugins.names(methods)],
)
def test_every_method_can_be_exported(method: str) -> None:
    net = untrained("tiny", method, 48)

    differences = export.compare(export._onnx(net, 48, {}), net, 48, 5)

    assert set(differences) == {"logits", "score_maps"}
    assert max(differences.values()) < export.TOLERANCE


@pytest.mark.full
@pytest.mark.parametrize("method", plugins.names(methods))
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_method_can_be_exported_on_every_backbone(backbone: str, method: str) -> None:
    net = untrained(backbone, method, 64)

    differences = export.compare(export._onnx(net, 64, {}), net, 64, 5)

    assert max(differences.values()) < export.TOLERANCE


def test_the_exported_module_is_the_evaluated_network() -> None:
    torch.manual_seed(0)
    net = build(plugins.make(methods, "cam", {}), plugins.make(backbones, "tiny", {}).build(), 4)
    net.backbone.normalisation = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    pixels, labels = torch.randint(256, (3, 3, 48, 48), dtype=torch.uint8), torch.tensor([2, 0, 3])

    logits, maps = Exported(net).eval()(pixels.float() / 255, labels)

    batch = Batch(normalise(pixels, net.backbone.normalisation), labels, ("a", "b", "c"))
    ((expected, expected_maps),) = loop.predict(net, [batch], torch.device("cpu"))
    assert torch.allclose(logits, expected, atol=1e-6)
    assert torch.allclose(maps, expected_maps, atol=1e-6)


def test_a_network_that_differs_is_not_written(
    wsolbench: Command, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: export.Export
) -> None:
    def other(_net: Exported, _side: int, _facts: dict[str, str]) -> bytes:
        model = onnx.load_from_string(exported.content)
        bias = next(each for each in model.graph.initializer if each.name.endswith("classifier.bias"))
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
        return model.SerializeToString()

    monkeypatch.setattr(export, "_onnx", other)

    ended = wsolbench("export", "--trial", trained[0].id, "--results", trained[1].results, "--out", tmp_path / "n.onnx")

    assert ended.code == 1
    assert "failed: onnxruntime differs from torch, logits by " in ended.err
    assert list(tmp_path.glob("*.onnx")) == []


@pytest.mark.parametrize("library", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_library_is_named(
    wsolbench: Command, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)

    ended = wsolbench("export", "--trial", trained[0].id, "--results", trained[1].results, "--out", tmp_path / "n.onnx")

    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"error: export needs {library}: pip install 'wsolbench[export]'\n"


def test_score_maps_off_gradients_are_refused(place: Place) -> None:
    trial = recipe.complete({**QUICK, "epochs": 0, "extract": "gradcam"})
    job.run(trial, place)

    with pytest.raises(InputError, match="off gradients, extract=gradcam; ONNX has none"):
        export.export(trial.id, place)


def test_export_writes_the_file_and_says_how_exact_it_is(wsolbench: Command, trained: Trained, tmp_path: Path) -> None:
    trial, place, _ = trained
    out = tmp_path / "new" / "n.onnx"

    ended = wsolbench("export", "--trial", trial.id, "--results", place.results, "--out", out, "--json")

    told = json.loads(ended.out)
    assert (ended.code, told["id"], told["bytes"]) == (0, trial.id, out.stat().st_size)
    assert max(told["differences"].values()) < 1e-4
    onnx.checker.check_model(str(out))


def test_an_export_is_an_onnx(wsolbench: Command, trained: Trained, tmp_path: Path) -> None:
    ended = wsolbench("export", "--trial", trained[0].id, "--out", tmp_path / "n.pt")

    assert (ended.code, ended.err) == (2, f"error: --out must be a .onnx file, not {str(tmp_path / 'n.pt')!r}\n")
