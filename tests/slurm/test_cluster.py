"""The cluster that the other tests here run on does what they take for granted."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import SCRIPT, Cluster, await_, cluster

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    with cluster(accounting="slurmdbd", node_timeout=3) as up:
        yield up


def submitted(slurm: Cluster, folder: Path, node: str, script: str) -> str:
    """The id of a job on a node."""
    path = folder / "job.sh"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    words = ("--parsable", f"--nodelist={node}", "--requeue", f"--output={folder}/%j.txt", path)
    return slurm.slurm("sbatch", *words).strip()


def state(slurm: Cluster, job: str) -> str:
    return slurm.slurm("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").strip()


def test_jobs_run_on_all_nodes_at_once(slurm: Cluster) -> None:
    names = slurm.slurm("srun", "--nodes=3", "--label", "printenv", "SLURMD_NODENAME")

    assert sorted(names.split()) == ["0:", "1:", "2:", "n1", "n2", "n3"]


def test_accounting_remembers_a_job(slurm: Cluster, tmp_path: Path) -> None:
    job = submitted(slurm, tmp_path, "n1", "exit 3")

    def told() -> str:
        return slurm.slurm("sacct", "-XnP", "-j", job, "-o", "State,ExitCode").strip()

    await_(lambda: "RUNNING" not in told() and "PENDING" not in told() and told(), 30, "the end")
    assert told() == "FAILED|3:0"


def test_crashed_node_loses_its_job_and_slurm_runs_it_again(slurm: Cluster, tmp_path: Path) -> None:
    job = submitted(slurm, tmp_path, "n2", f"echo $$ >> {tmp_path}/started; sleep 600")
    started = tmp_path / "started"
    await_(started.exists, 30, "the job")

    slurm.crash("n2")
    first = int(started.read_text(encoding="utf-8").split()[0])
    await_(lambda: first not in slurm.processes(), 10, "the end of the job's process")
    await_(lambda: state(slurm, job) != "RUNNING", 60, "the loss is noticed")
    slurm.start("n2")
    await_(lambda: len(started.read_text(encoding="utf-8").split()) == 2, 60, "the second start")
    slurm.slurm("scancel", job)


def test_job_on_a_cut_node_goes_on_unseen(slurm: Cluster, tmp_path: Path) -> None:
    submitted(slurm, tmp_path, "n3", f"echo $$ > {tmp_path}/started; sleep 600")
    started = tmp_path / "started"
    await_(lambda: started.exists() and started.read_text(encoding="utf-8"), 30, "the job")

    slurm.cut("n3")
    await_(lambda: "down" in slurm.slurm("sinfo", "-hN", "-n", "n3", "-o", "%T"), 60, "the loss is noticed")
    assert int(started.read_text(encoding="utf-8")) in slurm.processes()
    slurm.start("n3")


def test_two_clusters_do_not_see_each_other(slurm: Cluster, tmp_path: Path) -> None:
    with cluster(nodes=1) as other:
        job = submitted(other, tmp_path, "n1", "sleep 600")
        await_(lambda: state(other, job) == "RUNNING", 30, "the job")

        assert job not in slurm.slurm("squeue", "--noheader", "--format=%i").split()

    assert other.processes() == {}
    assert not other.folder.exists()


def test_missing_programs_are_named_with_their_packages() -> None:
    command, elsewhere = ["/bin/bash", str(SCRIPT), "check"], {"PATH": "/nowhere"}

    ended = subprocess.run(command, env=elsewhere, capture_output=True, text=True, check=False)

    assert ended.returncode == 4
    assert "apt-get install -y --no-install-recommends slurm-wlm munge slurmdbd" in ended.stderr
