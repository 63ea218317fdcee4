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


def test_crashed_node_loses_its_job_and_one_that_is_cut_off_does_not(slurm: Cluster, tmp_path: Path) -> None:
    files = {node: tmp_path / node for node in ("n2", "n3")}
    jobs = [submitted(slurm, tmp_path, node, f"echo $$ >> {file}; sleep 600") for node, file in files.items()]
    started = {node: await_(lambda file=file: numbers(file), 30, node)[0] for node, file in files.items()}

    slurm.crash("n2")
    slurm.cut("n3")
    await_(lambda: started["n2"] not in slurm.processes(), 10, "the end of the job's process")
    await_(lambda: "RUNNING" not in {state(slurm, job) for job in jobs}, 90, "the losses are noticed")
    assert started["n3"] in slurm.processes()
    for node in files:
        slurm.start(node)
    await_(lambda: all(len(numbers(file)) == 2 for file in files.values()), 90, "the second starts")
    assert started["n3"] not in slurm.processes()
    slurm.slurm("scancel", *jobs)


def numbers(file: Path) -> list[int]:
    """The process numbers that jobs have written down."""
    return [int(word) for word in file.read_text(encoding="utf-8").split()] if file.exists() else []


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
