import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from wsolbench import checkpoint
from wsolbench.checkpoint import Position

State = tuple[nn.Sequential, SGD]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


def made(seed: int = 0) -> State:
    """A network that has batch normalisation's counters, in channels_last, and its optimizer."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
    net.to(memory_format=torch.channels_last)
    return net, SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True, fused=True)


def train(state: State, epochs: int, first: int = 0) -> None:
    net, sgd = state
    for epoch in range(first, first + epochs):
        torch.manual_seed(epoch)
        sgd.zero_grad()
        net(torch.randn(4, 3, 6, 6)).square().mean().backward()
        sgd.step()


def written(folder: Path, epochs: int, attempt: str = "0001") -> State:
    """A state trained so long, with a checkpoint after every epoch."""
    state = made()
    for epoch in range(epochs):
        train(state, 1, epoch)
        checkpoint.write(folder, Position(epoch + 1), attempt, *state)
    return state


def weights(folder: Path, epoch: int, attempt: str = "0001") -> Path:
    return folder / f"epoch_{epoch:04d}.attempt_{attempt}.safetensors"


def damage(path: Path, change: Callable[[bytearray], bytes | bytearray]) -> None:
    path.write_bytes(change(bytearray(path.read_bytes())))


def flipped(share: float, bit: int) -> Callable[[bytearray], bytearray]:
    def flip(content: bytearray) -> bytearray:
        content[int(share * (len(content) - 1))] ^= 1 << bit
        return content

    return flip


def cut(share: float) -> Callable[[bytearray], bytearray]:
    return lambda content: content[: int(share * len(content))]


def test_nothing_is_resumed_where_there_is_no_checkpoint(folder: Path) -> None:
    state = made()
    before = checkpoint.digest(state[0])

    assert checkpoint.resume(folder, *state) == Position(0)
    assert checkpoint.digest(state[0]) == before


def test_weights_and_counters_are_resumed(folder: Path) -> None:
    old = written(folder, 2)
    new = made(seed=1)

    assert checkpoint.resume(folder, *new) == Position(2)
    assert checkpoint.digest(new[0]) == checkpoint.digest(old[0])


def test_momentum_is_resumed(folder: Path) -> None:
    old, new = written(folder, 2), made(seed=1)
    checkpoint.resume(folder, *new)

    for a, b in zip(old[0].parameters(), new[0].parameters(), strict=True):
        saved, resumed = (state[1].state[p]["momentum_buffer"] for state, p in ((old, a), (new, b)))
        assert torch.equal(saved, resumed)
        assert resumed.stride() == b.stride()  # the fused step reads both alike


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_training_goes_on_bit_for_bit(folder: Path, stop: int) -> None:
    whole, resumed = made(), made(seed=1)
    train(whole, 4)
    written(folder, stop)

    train(resumed, 4 - stop, checkpoint.resume(folder, *resumed).epoch)

    assert checkpoint.digest(resumed[0]) == checkpoint.digest(whole[0])


def test_last_two_are_kept(folder: Path) -> None:
    written(folder, 5)

    kept = [weights(folder, epoch) for epoch in (4, 5)]
    assert sorted(folder.iterdir()) == sorted([*kept, *(path.with_suffix(".sha256") for path in kept)])


def test_seal_is_the_digest_of_the_file(folder: Path) -> None:
    written(folder, 1)

    path = weights(folder, 1)
    assert path.with_suffix(".sha256").read_text() == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_truncated_checkpoint_falls_back_to_the_one_before(folder: Path, share: float) -> None:
    written(folder, 3)
    damage(weights(folder, 3), cut(share))

    assert checkpoint.resume(folder, *made()) == Position(2)


@pytest.mark.parametrize("offset", range(40))
def test_one_flipped_bit_falls_back_to_the_one_before(folder: Path, offset: int) -> None:
    written(folder, 2)
    damage(weights(folder, 2), flipped(offset / 39, offset % 8))

    assert checkpoint.resume(folder, *made()) == Position(1)


@pytest.mark.parametrize("bit", range(8))
def test_flipped_bit_in_the_seal_falls_back_to_the_one_before(folder: Path, bit: int) -> None:
    written(folder, 2)
    damage(weights(folder, 2).with_suffix(".sha256"), flipped(0.5, bit))

    assert checkpoint.resume(folder, *made()) == Position(1)


def test_checkpoint_without_a_seal_was_not_finished(folder: Path) -> None:
    written(folder, 2)
    weights(folder, 2).with_suffix(".sha256").unlink()

    assert checkpoint.resume(folder, *made()) == Position(1)


def test_checkpoint_that_another_attempt_removes_is_passed_over(folder: Path) -> None:
    written(folder, 2)
    weights(folder, 9).symlink_to(folder / "gone")

    assert checkpoint.resume(folder, *made()) == Position(2)


def test_damaged_checkpoint_is_told_once(folder: Path) -> None:
    written(folder, 2)
    damage(weights(folder, 2), cut(0.5))
    told: list[str] = []

    checkpoint.resume(folder, *made(), told.append)

    assert told == [f"{weights(folder, 2)} is damaged; the checkpoint before it serves"]


def test_checkpoint_that_was_never_finished_is_no_damage(folder: Path) -> None:
    written(folder, 2)
    weights(folder, 2).with_suffix(".sha256").unlink()
    told: list[str] = []

    checkpoint.resume(folder, *made(), told.append)

    assert told == []


class Payload:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["torch", "pickle", "text"])
def test_sealed_file_of_another_kind_is_passed_over_and_its_code_does_not_run(folder: Path, kind: str) -> None:
    written(folder, 1)
    hostile, ran = weights(folder, 2), folder / "ran"
    payload = {"net.0.weight": Payload(ran)}
    if kind == "torch":
        torch.save(payload, hostile)
    else:
        hostile.write_bytes(pickle.dumps(payload) if kind == "pickle" else b"text")
    hostile.with_suffix(".sha256").write_text(hashlib.sha256(hostile.read_bytes()).hexdigest())

    assert checkpoint.resume(folder, *made()) == Position(1)
    assert not ran.exists()


def test_checkpoint_that_was_never_finished_is_none_of_the_two_kept(folder: Path) -> None:
    state = written(folder, 2)
    weights(folder, 3, "0002").touch()

    checkpoint.write(folder, Position(3), "0003", *state)

    kept = [weights(folder, 2), weights(folder, 3, "0003")]
    assert sorted(folder.glob("*.safetensors")) == kept


def test_training_starts_anew_where_all_are_damaged(folder: Path) -> None:
    written(folder, 2)
    for epoch in (1, 2):
        damage(weights(folder, epoch), cut(0.5))
    state = made(seed=1)
    before = checkpoint.digest(state[0])

    assert checkpoint.resume(folder, *state) == Position(0)
    assert checkpoint.digest(state[0]) == before


def test_resuming_after_a_fall_back_equals_the_whole_run(folder: Path) -> None:
    whole, resumed = made(), made(seed=1)
    train(whole, 4)
    written(folder, 3)
    damage(weights(folder, 3), flipped(0.7, 3))

    train(resumed, 2, checkpoint.resume(folder, *resumed).epoch)

    assert checkpoint.digest(resumed[0]) == checkpoint.digest(whole[0])


def test_epochs_count_and_are_not_spelled(folder: Path) -> None:
    state = made()
    for epoch in (9998, 9999, 10000):
        checkpoint.write(folder, Position(epoch), "0001", *state)

    assert checkpoint.resume(folder, *state) == Position(10000)


def test_another_attempt_writes_files_of_its_own(folder: Path) -> None:
    written(folder, 1, "0001")
    before = weights(folder, 1).stat().st_mtime_ns

    written(folder, 1, "0002")

    assert weights(folder, 1).stat().st_mtime_ns == before
    assert weights(folder, 1, "0002").exists()


def test_other_files_are_passed_over(folder: Path) -> None:
    written(folder, 1)
    for name in ("notes.txt", ".epoch_0009.attempt_0001.safetensors.host.1.tmp", "epoch_0009.safetensors"):
        (folder / name).touch()

    assert checkpoint.resume(folder, *made()) == Position(1)


def test_digest_is_of_the_values_whatever_their_layout() -> None:
    net, _ = made()
    before = checkpoint.digest(net)

    assert checkpoint.digest(net.to(memory_format=torch.contiguous_format)) == before


def test_digest_tells_the_last_bit() -> None:
    net, _ = made()
    before = checkpoint.digest(net)
    weight = net[0].weight
    assert isinstance(weight, nn.Parameter)

    with torch.no_grad():
        weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], torch.tensor(1.0))

    assert checkpoint.digest(net) != before
