import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import Command
from wsolbench import doctor, methods
from wsolbench.doctor import Finding

CONFIG = {
    "AccountingStorageType": "accounting_storage/slurmdbd",
    "JobRequeue": "1",
    "KillWait": "30 sec",
    "MaxArraySize": "1001",
    "MinJobAge": "300 sec",
    "PreemptMode": "OFF",
    "PreemptType": "preempt/none",
    "SLURM_VERSION": "22.05.8",
}
"""What `scontrol show config` says of a cluster that is well."""

Fake = Callable[..., None]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Puts programs of one's own in the place of all others: name -> shell script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(**scripts: str) -> None:
        for name, script in scripts.items():
            path = folder / name
            path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            path.chmod(0o755)

    return put


def config(**changed: str) -> str:
    """A script that prints a cluster's configuration."""
    return "\n".join(f"echo '{name:24}= {value}'" for name, value in {**CONFIG, **changed}.items())


def well(**changed: str) -> dict[str, str]:
    """The scripts of a cluster that is well."""
    silent = dict.fromkeys(("sbatch", "squeue", "scancel", "sacct"), "")
    return {"scontrol": config(**changed), "sinfo": "echo 'main|up|1/2/0/3|infinite'", **silent}


def by_name(found: list[Finding]) -> Mapping[str, Finding]:
    return {finding.check: finding for finding in found}


def disk_of(monkeypatch: pytest.MonkeyPatch, total: int, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=total, free=free))


# The machine


def test_torch_that_finds_no_gpu_beside_a_driver_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)

    found = doctor.torch(driver=tmp_path)

    assert (found.verdict, torch.__version__ in found.found) == ("wrong", True)
    assert "CUDA_VISIBLE_DEVICES" in found.fix


def test_machine_without_gpu_is_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)

    assert doctor.torch(driver=tmp_path / "none").verdict == "ok"


def test_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"card {index}")

    assert doctor.torch().found.endswith("2 GPU(s): card 0, card 1")


def test_torch_that_cannot_be_imported_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)

    assert doctor.torch().verdict == "wrong"


@pytest.mark.parametrize(("version", "verdict"), [("1.5.1", "wrong"), ("1.5.2", "ok"), ("1.10.0rc1", "ok")])
def test_age_of_submitit(monkeypatch: pytest.MonkeyPatch, version: str, verdict: str) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)

    assert doctor.submitit().verdict == verdict


# Disks


@pytest.mark.parametrize(("free", "verdict"), [(2**30 - 1, "wrong"), (2**30, "ok")])
def test_free_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, verdict: str) -> None:
    disk_of(monkeypatch, 2**40, free)

    assert doctor.disk("home disk", tmp_path).verdict == verdict


def test_disk_without_room_for_another_file_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk_of(monkeypatch, 2**40, 2**39)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=1_000_000, f_favail=10))

    assert "inode" in doctor.disk("home disk", tmp_path).fix


def test_small_shared_memory_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk_of(monkeypatch, 64 * 2**20, 64 * 2**20)  # a container's default

    found = doctor.shared_memory(tmp_path)

    assert (found.verdict, "64 MiB" in found.found, "--shm-size" in found.fix) == ("wrong", True, True)


@pytest.mark.parametrize("folder", [Path("/proc"), Path("/proc/self/fdinfo")])
def test_folder_that_cannot_be_written_is_wrong(folder: Path) -> None:
    found = doctor.writable(folder)

    assert (found.verdict, str(folder) in found.found, "--results" in found.fix) == ("wrong", True, True)


def test_disk_without_hard_links_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)

    assert doctor.links(tmp_path).verdict == "wrong"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ahead", "verdict"), [(-3600.0, "wrong"), (0.0, "ok"), (4.0, "ok"), (6.0, "wrong")])
def test_skew_of_the_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ahead: float, verdict: str) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead)

    assert doctor.clock(tmp_path).verdict == verdict


MOUNTS = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:50 / /home rw shared:2 - nfs4 server:/home rw,vers=4.2
31 22 0:51 / /data\040sets rw - lustre mds@tcp:/data rw
32 22 0:52 / /homestead rw - xfs /dev/vdb rw
33 22 0:53 / /mnt rw - nfs4 server:/mnt rw
34 33 0:54 / /mnt rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("folder", "verdict", "kind"),
    [
        ("/home/me/results", "note", "nfs4"),
        ("/homestead/results", "note", "xfs"),
        ("/data sets/results", "ok", "lustre"),
        ("/mnt/results", "note", "tmpfs"),
        ("/srv", "note", "ext4"),
    ],
)
def test_kind_of_file_system(folder: str, verdict: str, kind: str) -> None:
    found = doctor.filesystem(Path(folder), MOUNTS, cluster=True)

    assert (found.verdict, found.found.split(":")[0].split(",")[0]) == (verdict, kind)


def test_disk_of_one_machine_is_fit_without_a_cluster() -> None:
    assert doctor.filesystem(Path("/srv"), MOUNTS, cluster=False).verdict == "ok"


@pytest.mark.parametrize(("mode", "verdict"), [(0o700, "ok"), (0o755, "ok"), (0o770, "wrong"), (0o702, "wrong")])
def test_folder_of_pickles_that_others_may_write_is_wrong(tmp_path: Path, mode: int, verdict: str) -> None:
    tmp_path.chmod(mode)

    found = doctor.private(tmp_path)

    assert found.verdict == verdict
    assert ("chmod 700" in found.fix) == (verdict == "wrong")


def test_somebody_elses_folder_of_pickles_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)

    assert doctor.private(tmp_path).verdict == "wrong"


# SLURM


def test_machine_without_slurm_is_fit(commands: Fake) -> None:
    commands()

    assert [finding.verdict for finding in doctor.cluster()] == ["ok"]


def test_missing_commands_are_named(commands: Fake) -> None:
    scripts = well()
    del scripts["sbatch"]
    commands(**scripts)

    (found,) = doctor.cluster()

    assert (found.verdict, found.found) == ("wrong", "no sbatch in PATH")


def test_cluster_that_is_well(commands: Fake) -> None:
    commands(**well())

    found = by_name(list(doctor.cluster()))

    assert {finding.verdict for finding in found.values()} == {"ok"}
    assert found["arrays"].found.startswith("up to 1001 trials")
    assert found["partitions"].found == "main (3 nodes, at most infinite)"
    assert found["end of a job"].found.startswith("30 s ")


@pytest.mark.parametrize("scontrol", ["echo slurm_load_ctl_conf error >&2; exit 1", "exec /bin/sleep 60"])
def test_controller_that_does_not_answer_is_wrong(
    commands: Fake, monkeypatch: pytest.MonkeyPatch, scontrol: str
) -> None:
    monkeypatch.setattr("wsolbench.slurm.TIMEOUT", 0.3)
    commands(**{**well(), "scontrol": scontrol})

    (found,) = doctor.cluster()

    assert (found.verdict, found.check) == ("wrong", "slurm")


@pytest.mark.parametrize(
    ("check", "script", "verdict"),
    [
        ("sacct", "echo 'Problem talking to the database' >&2; exit 1", "wrong"),
        ("squeue", "exit 1", "wrong"),
        ("squeue", "echo garbage", "wrong"),
        ("sinfo", "echo 'main|down|0/3/0/3|infinite'; echo 'gpu|up|0/0/3/3|1:00'", "wrong"),
    ],
)
def test_command_that_fails_is_wrong(commands: Fake, check: str, script: str, verdict: str) -> None:
    commands(**{**well(), check: script})

    found = by_name(list(doctor.cluster()))

    assert found[{"sinfo": "partitions"}.get(check, check)].verdict == verdict


@pytest.mark.parametrize(
    ("check", "settings", "verdict"),
    [
        ("arrays", {"MaxArraySize": "0"}, "wrong"),
        ("arrays", {"MaxArraySize": "8"}, "ok"),
        ("sacct", {"AccountingStorageType": "accounting_storage/none"}, "note"),
        ("requeue", {"JobRequeue": "0"}, "note"),
        ("end of a job", {"KillWait": "2 sec"}, "note"),
        ("preemption", {"PreemptType": "preempt/qos", "PreemptMode": "CANCEL"}, "note"),
        ("preemption", {"PreemptType": "preempt/qos", "PreemptMode": "REQUEUE"}, "note"),
        (
            "preemption",
            {
                "PreemptType": "preempt/qos",
                "PreemptMode": "REQUEUE",
                "SlurmctldParameters": "idle_on_node_suspend,preempt_send_user_signal",
            },
            "ok",
        ),
    ],
)
def test_settings_of_the_cluster(commands: Fake, check: str, settings: dict[str, str], verdict: str) -> None:
    commands(**well(**settings))

    assert by_name(list(doctor.cluster()))[check].verdict == verdict


# The command


@pytest.fixture
def _fit(commands: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without SLURM or GPU, with room on its disks."""
    commands()
    disk_of(monkeypatch, 2**40, 2**39)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "card")


@pytest.mark.usefixtures("_fit")
def test_machine_that_is_fit_exits_with_0_and_leaves_nothing_behind(wsolbench: Command, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))

    ended = wsolbench("doctor", "--results", tmp_path / "results")

    assert (ended.code, ended.err) == (0, "")
    assert "wrong" not in ended.out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("_fit")
def test_machine_that_is_not_fit_exits_with_4_and_tells_the_fix(wsolbench: Command, tmp_path: Path) -> None:
    (tmp_path / ".jobs").mkdir()
    (tmp_path / ".jobs").chmod(0o777)

    ended = wsolbench("doctor", "--results", tmp_path)

    assert ended.code == 4
    assert f"-> chmod 700 {tmp_path}/.jobs" in ended.out


@pytest.mark.usefixtures("_fit")
def test_json_has_every_finding(wsolbench: Command, tmp_path: Path) -> None:
    ended = wsolbench("doctor", "--results", tmp_path, "--json")

    found = json.loads(ended.out)
    assert {"python", "torch", "results disk", "clock", "slurm"} <= {finding["check"] for finding in found}
    assert all(set(finding) == {"check", "verdict", "found", "fix"} for finding in found)
    assert all(finding["fix"] for finding in found if finding["verdict"] == "wrong")


def test_a_folder_of_methods_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = doctor.method_folders()
    monkeypatch.setattr(methods, "__path__", ["/nowhere", *methods.__path__])

    after = doctor.method_folders()

    assert (before.verdict, after.verdict) == ("ok", "wrong")
    assert after.found == "WSOLBENCH_METHODS names '/nowhere', which is no folder"
