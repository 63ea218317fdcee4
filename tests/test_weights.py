import csv
import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from wsolbench import backbones, files, methods, plugins, weights
from wsolbench.backbone import IMAGENET, Backbone, Pretrained
from wsolbench.errors import InputError
from wsolbench.method import Net, build

CLASSES = 3
BODY = ["features.0.bias", "features.0.weight", "features.1.bias", "features.1.running_mean", "features.1.running_var"]
BODY += ["features.1.weight"]


def fetched() -> dict[str, Tensor]:
    """What a source gives, under the source's names: body, classifier, and a part that the body has no place for."""
    generator = torch.Generator().manual_seed(7)
    shapes = {
        "features.0.weight": (4, 3, 3, 3),
        "features.0.bias": (4,),
        "fc.weight": (CLASSES, 4),
        "fc.bias": (CLASSES,),
    }
    shapes |= dict.fromkeys(BODY[2:], (4,)) | {"aux.weight": (2, 2)}
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def network(num_classes: int = CLASSES, **changes: Any) -> Net:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    settings = {"prefix": "features.", "classifier": "fc.", "unused": ("aux.",), "download": fetched, **changes}
    backbone = Backbone(body, {"conv1": "body.1"}, ("conv1",), (4,), pretrained=Pretrained("a source", **settings))
    return build(plugins.make(methods, "cam", {}), backbone, num_classes)


def state(net: Net) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def saved(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata)
    else:
        torch.save(tensors, path)
    return path


def wrapped(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("form", [dict, wrapped])
def test_a_file_fills_body_and_head(tmp_path: Path, suffix: str, form: Callable[..., Any]) -> None:
    if form is wrapped and suffix == ".safetensors":
        pytest.skip("safetensors holds tensors only")
    net, source = network(), fetched()

    loaded = weights.load(net, saved(tmp_path / f"net{suffix}", form(source)))

    assert all(
        torch.equal(net.backbone.body.state_dict()[name.removeprefix("features.")], source[name]) for name in BODY
    )
    assert torch.equal(net.head.state_dict()["classifier.weight"], source["fc.weight"])
    assert torch.equal(net.head.state_dict()["classifier.bias"], source["fc.bias"])
    assert loaded.classifier


def test_says_what_was_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.safetensors", fetched())

    loaded = weights.load(network(), path)

    assert loaded == weights.Provenance(
        source="net.safetensors",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        tensors=8,
        missing=("1.num_batches_tracked",),
        unexpected=("aux.weight",),
        normalisation=IMAGENET,
        normalisation_source="backbone",
        classifier=True,
    )


def test_other_classes_leave_the_head_as_it_was(tmp_path: Path) -> None:
    net = network(num_classes=5)
    before = state(net)["head.classifier.weight"]

    loaded = weights.load(net, saved(tmp_path / "net.pt", fetched()))

    assert not loaded.classifier
    assert loaded.tensors == 6
    assert loaded.unexpected == ("aux.weight", "fc.bias", "fc.weight")
    assert torch.equal(state(net)["head.classifier.weight"], before)


def without(name: str) -> dict[str, Tensor]:
    return {other: tensor for other, tensor in fetched().items() if other != name}


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        (without("features.0.weight"), r"missing: features\.0\.weight$"),
        (fetched() | {"layer9.weight": torch.ones(1)}, r"unexpected: layer9\.weight$"),
        (
            fetched() | {"features.0.bias": torch.ones(5)},
            r"of another shape: features\.0\.bias \(5,\) for \(4,\)$",
        ),
        ({"a": torch.ones(1)}, r"missing: features\.0\.weight, features\.0\.bias, .* and 3 more; unexpected: a$"),
    ],
)
def test_weights_of_another_network_are_refused_and_change_nothing(
    tmp_path: Path, tensors: dict[str, Tensor], problem: str
) -> None:
    net = network()
    before = state(net)

    with pytest.raises(InputError, match=r"net\.pt has the weights of another network; " + problem):
        weights.load(net, saved(tmp_path / "net.pt", tensors))

    assert all(torch.equal(state(net)[name], before[name]) for name in before)


def test_counters_of_batch_normalisation_may_be_there(tmp_path: Path) -> None:
    tensors = fetched() | {"features.1.num_batches_tracked": torch.tensor(8)}

    loaded = weights.load(network(), saved(tmp_path / "net.pt", tensors))

    assert loaded.missing == ()


def test_normalisation_is_the_files_where_it_says_so(tmp_path: Path) -> None:
    net = network()
    metadata = {"mean": "[0.5, 0.25, 0.125]", "std": "[1.0, 1.0, 0.5]"}

    loaded = weights.load(net, saved(tmp_path / "net.safetensors", fetched(), metadata))

    assert net.backbone.normalisation == loaded.normalisation == ((0.5, 0.25, 0.125), (1.0, 1.0, 0.5))
    assert loaded.normalisation_source == "file"


def test_normalisation_is_else_that_of_the_backbones_weights(tmp_path: Path) -> None:
    own = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    net = network(normalisation=own)
    net.backbone.normalisation = IMAGENET

    loaded = weights.load(net, saved(tmp_path / "net.safetensors", fetched()))

    assert net.backbone.normalisation == loaded.normalisation == own
    assert loaded.normalisation_source == "backbone"


@pytest.mark.parametrize(
    "metadata",
    [
        {"mean": "[0.5, 0.5, 0.5]"},
        {"mean": "[0.5, 0.5]", "std": "[0.5, 0.5]"},
        {"mean": "half", "std": "half"},
        {"mean": "[0.5, 0.5, null]", "std": "[0.5, 0.5, 0.5]"},
    ],
)
def test_a_normalisation_that_is_none_is_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"net\.safetensors: .* in its metadata must be"):
        weights.load(network(), saved(tmp_path / "net.safetensors", fetched(), metadata))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, suffix: str, share: float) -> None:
    path = saved(tmp_path / f"net{suffix}", fetched())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(InputError, match=rf"cannot read weights from '.*net\{suffix}', damaged or of another kind"):
        weights.load(network(), path)


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty; fetch it again"),
        (b"<html>404</html>" * 100, "it is a web page; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1", "it only points to a file of Git LFS; fetch that with "),
        (b"hello", "it is not what (torch.save|safetensors) writes, or not all of it; fetch it again"),
        (b"J\x01", "it is not what (torch.save|safetensors) writes"),  # torch fails with errors of many kinds
        (b"\xff" * 999, "it is not what (torch.save|safetensors) writes"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_words(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError, match=f"cannot read weights from .*, damaged or of another kind: {why}"):
        weights.load(network(), tmp_path / name)


class Payload:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_with_code_is_refused_and_does_not_run(tmp_path: Path, legacy: bool) -> None:
    if legacy:
        (tmp_path / "net.pt").write_bytes(pickle.dumps({"a": Payload(tmp_path / "ran")}, protocol=2))
    else:
        torch.save({"a": Payload(tmp_path / "ran")}, tmp_path / "net.pt")

    with pytest.raises(InputError, match="it holds more than tensors, which might run code; save its state_dict"):
        weights.load(network(), tmp_path / "net.pt")

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{}, {"a": 1}, {"state_dict": {"a": "b"}}, {"state_dict": 1}, [1]], ids=str)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "net.pt")

    with pytest.raises(InputError, match=r"net\.pt' holds no weights"):
        weights.load(network(), tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere.pt", r"no file of weights '.*nowhere\.pt'"),
        ("folder.pt", r"no file of weights '.*folder\.pt'"),
        ("net.npz", r"must be imagenet or a \.safetensors, \.pt or \.pth file, not '.*net\.npz'"),
        ("imagenett", r"must be imagenet or a \.safetensors, \.pt or \.pth file, not '.*imagenett'"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "folder.pt").mkdir()

    with pytest.raises(InputError, match=problem):
        weights.load(network(), tmp_path / name)


def test_imagenet_is_what_the_backbone_downloads() -> None:
    net = network()

    loaded = weights.load(net, "imagenet")

    assert torch.equal(net.backbone.body.state_dict()["0.weight"], fetched()["features.0.weight"])
    assert loaded.source == "a source"
    assert len(loaded.sha256) == 64


def test_digest_of_a_download_knows_values_but_not_their_order() -> None:
    def digest(tensors: dict[str, Tensor]) -> str:
        return weights.load(network(download=lambda: tensors), "imagenet").sha256

    same = digest(dict(reversed(fetched().items())))
    other = digest(fetched() | {"features.0.bias": torch.zeros(4)})

    assert same == digest(fetched()) != other


def test_a_failed_download_says_what_to_do() -> None:
    def offline() -> dict[str, Tensor]:
        raise OSError("no route to host")

    with pytest.raises(InputError, match=r"cannot download a source: no route to host.*give the file"):
        weights.load(network(download=offline), "imagenet")


def test_a_backbone_without_pretrained_weights_takes_a_file_of_its_own(tmp_path: Path) -> None:
    def fresh() -> Net:
        return build(plugins.make(methods, "cam", {}), plugins.make(backbones, "tiny", {}).build(), CLASSES)

    net, other = fresh(), fresh()
    path = saved(tmp_path / "net.safetensors", {n: t.contiguous() for n, t in other.backbone.body.state_dict().items()})

    weights.load(net, path)

    assert all(
        torch.equal(p, q) for p, q in zip(net.pretrained_parameters(), other.pretrained_parameters(), strict=True)
    )
    with pytest.raises(InputError, match="no imagenet weights"):
        weights.load(net, "imagenet")


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"pad_type": "same", "bn_eps": 0.001}, {"padding": "same", "bn_eps": 0.001}),
        ({"pad_type": ""}, {"padding": "symmetric"}),
        ({}, {}),
    ],
)
def test_file_options_are_those_of_the_metadata(
    tmp_path: Path, kwargs: dict[str, Any], expected: dict[str, Any]
) -> None:
    path = saved(tmp_path / "net.safetensors", fetched(), {"kwargs": json.dumps(kwargs)})

    assert weights.file_options(path) == expected


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
def test_a_file_without_metadata_asks_for_no_options(tmp_path: Path, name: str) -> None:
    assert weights.file_options(saved(tmp_path / name, fetched())) == {}


@pytest.mark.parametrize("kwargs", ["{", "[1]"])
def test_metadata_that_is_no_mapping_is_refused(tmp_path: Path, kwargs: str) -> None:
    path = saved(tmp_path / "net.safetensors", fetched(), {"kwargs": kwargs})

    with pytest.raises(InputError, match=r"net\.safetensors: kwargs in its metadata must be a JSON dict"):
        weights.file_options(path)


def test_sha256_is_of_the_files_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")

    digest = files.sha256(tmp_path / "file")

    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, example 1


def image(path: Path) -> Tensor:
    with Image.open(io.BytesIO(path.read_bytes())) as opened:
        pixels = np.asarray(opened.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 127.5 - 1


@pytest.mark.full
@pytest.mark.skipif(
    not {"WSOLBENCH_WEIGHTS", "WSOLBENCH_ILSVRC"} <= os.environ.keys(),
    reason="WSOLBENCH_WEIGHTS must be a file for MobileNetV1, WSOLBENCH_ILSVRC a folder with class_labels.txt",
)
def test_pretrained_mobilenet_knows_imagenet() -> None:
    file, folder = Path(os.environ["WSOLBENCH_WEIGHTS"]), Path(os.environ["WSOLBENCH_ILSVRC"])
    options = {**weights.file_options(file), "output_stride": 32}
    net = build(plugins.make(methods, "cam", {}), plugins.make(backbones, "mobilenet_v1", options).build(), 1000)
    loaded = weights.load(net, file)
    net.eval()

    with (folder / "class_labels.txt").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))
    right: list[bool] = []
    for start in range(0, len(rows), 25):
        group = rows[start : start + 25]
        with torch.inference_mode():
            found = net(torch.stack([image(folder / name) for name, _ in group])).logits.argmax(1).tolist()
        right += [label == int(known) for label, (_, known) in zip(found, group, strict=True)]

    assert loaded.classifier
    assert loaded.normalisation == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert 73 <= 100 * sum(right) / len(right) <= 81
