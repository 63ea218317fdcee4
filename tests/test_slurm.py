from pathlib import Path

import pytest

from tests.fake_slurm import FakeSlurm
from wsolbench import slurm
from wsolbench.slurm import Job, NoAnswerError, RefusedError

QUEUE = """\
12_0|RUNNING|n1|wsolbench:abc|None
12_1|PENDING||wsolbench:abc|(launch failed requeued held)
13|COMPLETED|n2|wsolbench:def|None
14|RUNNING|n2|(null)|None
15|RUNNING|n2|a|b
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return FakeSlurm(tmp_path / "bin")


# Reading


def test_queue_has_our_jobs_only() -> None:
    found = slurm.read_queue(QUEUE)

    assert list(found) == ["12_0", "12_1", "13"]
    assert found["12_0"] == Job("12_0", "RUNNING", "n1", "", "wsolbench:abc")
    assert found["12_1"].reason == "(launch failed requeued held)"
    assert found["13"].batch == "def"


def test_reason_may_hold_what_parts_the_columns() -> None:
    assert slurm.read_queue("1|PENDING||wsolbench:b|a|b")["1"].reason == "a|b"


@pytest.mark.parametrize("text", ["what is this", "1|2|3", "1|running|n1|wsolbench:x|r", "slurm_load_jobs error: x"])
def test_what_is_no_queue_is_no_answer(text: str) -> None:
    with pytest.raises(NoAnswerError, match="says nothing of a job"):
        slurm.read_queue(text)


def test_an_empty_queue_is_an_answer() -> None:
    assert slurm.read_queue("\n") == {}


@pytest.mark.parametrize(
    ("state", "alive", "on_node"),
    [
        ("PENDING", True, False),
        ("RUNNING", True, True),
        ("COMPLETING", True, True),
        ("SUSPENDED", True, True),
        ("REQUEUE_HOLD", True, False),
        ("NODE_FAIL", False, False),
        ("COMPLETED", False, False),
        ("CANCELLED", False, False),
    ],
)
def test_a_job_is_alive_as_long_as_slurm_is_not_done_with_it(state: str, alive: bool, on_node: bool) -> None:
    job = Job("1", state)

    assert (job.alive, job.on_node) == (alive, on_node)


def test_accounts_are_read_line_by_line() -> None:
    text = "12_0|CANCELLED by 1000|0:15|n1\ngarbage\n12_1|NODE_FAIL|0:0|n2\n12_2||0:0|n2\n"

    found = slurm.read_accounts(text)

    assert found == {
        "12_0": Job("12_0", "CANCELLED", "n1", "CANCELLED by 1000", exit_code="0:15"),
        "12_1": Job("12_1", "NODE_FAIL", "n2", "NODE_FAIL", exit_code="0:0"),
    }


def test_a_job_is_read_from_the_controller() -> None:
    text = "JobId=15 ArrayJobId=12 JobState=OUT_OF_MEMORY Reason=OutOfMemory ExitCode=0:125 NodeList=n3 Comment=a=b"

    assert slurm.read_job(text, "12_3") == {"12_3": Job("12_3", "OUT_OF_MEMORY", "n3", "OutOfMemory", "", "0:125")}


def test_what_says_nothing_of_a_job_is_none() -> None:
    assert slurm.read_job("garbage", "12") == {}


def test_settings_are_read_by_name() -> None:
    text = "Configuration data as of 2026\nMaxArraySize            = 1001\nAuthInfo                = socket=/run,x=5\n"

    assert dict(slurm.read_settings(text)) == {"MaxArraySize": "1001", "AuthInfo": "socket=/run,x=5"}


# Asking


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("hang", "squeue did not answer in 2 s"),
        ("garbage", "says nothing of a job"),
        (
            "squeue: error: Unable to contact slurm controller\nmore",
            "squeue: error: Unable to contact slurm controller$",
        ),
    ],
)
def test_a_queue_that_does_not_answer_is_told(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, how: str, said: str
) -> None:
    monkeypatch.setattr(slurm, "TIMEOUT", 2.0)
    fake.fault("squeue", how)

    with pytest.raises(NoAnswerError, match=said):
        slurm.queue()


def test_a_queue_that_is_not_there_is_told(fake: FakeSlurm) -> None:
    fake.remove("squeue")

    with pytest.raises(NoAnswerError, match="there is no squeue here"):
        slurm.queue()
    assert not slurm.there()


@pytest.mark.parametrize("how", ["works", "hang", "garbage", "sacct: Slurm accounting storage is disabled"])
def test_how_a_job_ended_is_known_without_accounting_too(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(slurm, "TIMEOUT", 2.0)
    fake.set(accounts={"12_0": "NODE_FAIL"})
    fake.fault("sacct", "" if how == "works" else how)

    found = slurm.ended(["12_0", "13"])

    assert {job_id: (job.state, job.node, job.exit_code) for job_id, job in found.items()} == {
        "12_0": ("NODE_FAIL", "n1", "0:9")
    }


def test_nobody_is_asked_again_and_again_where_nobody_answers(fake: FakeSlurm) -> None:
    fake.remove("sacct")
    fake.fault("scontrol", "slurm_load_jobs error: Unable to contact slurm controller")

    assert slurm.ended(["1", "2", "3"]) == {}
    assert fake.calls("scontrol") == 1


def test_a_job_that_accounting_thinks_running_has_not_ended(fake: FakeSlurm) -> None:
    fake.set(accounts={"12": "RUNNING"})

    assert slurm.ended(["12"]) == {}


# Submitting


def script(folder: Path) -> Path:
    path = folder / "job.sh"
    path.write_text("#!/bin/bash\n#SBATCH --job-name=a\n#SBATCH --comment=wsolbench:a\n", encoding="utf-8")
    return path


def test_submission_returns_the_job(fake: FakeSlurm, tmp_path: Path) -> None:
    job_id = slurm.submit(script(tmp_path))

    assert job_id in fake.jobs


@pytest.mark.parametrize(
    ("message", "full"),
    [
        ("sbatch: error: AssocMaxSubmitJobLimit", True),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", True),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", True),
        ("sbatch: error: invalid partition specified: nowhere", False),
    ],
)
def test_refusal_says_whether_fewer_jobs_would_do(fake: FakeSlurm, tmp_path: Path, message: str, full: bool) -> None:
    fake.fault("sbatch", message)

    with pytest.raises(RefusedError) as caught:
        slurm.submit(script(tmp_path))

    assert (str(caught.value), caught.value.full) == (message, full)


def test_sbatch_that_prints_no_id_is_told(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.fault("sbatch", "garbage")

    with pytest.raises(NoAnswerError, match="no job's id"):
        slurm.submit(script(tmp_path))


def test_jobs_get_no_secret_and_nothing_of_the_job_or_node_they_come_from() -> None:
    ours = {
        "PATH": "/bin",
        "WSOLBENCH_METHODS": "mine",
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_ARRAY_JOB_ID": "7",
        "SBATCH_EXPORT": "NONE",
        "CUDA_VISIBLE_DEVICES": "3",
        "OMP_NUM_THREADS": "1",
        "HF_TOKEN": "x",
        "aws_secret_access_key": "x",
        "MY_API_KEY": "x",
        "DB_PASSWORD": "x",
    }

    assert slurm.environment(ours) == {"PATH": "/bin", "WSOLBENCH_METHODS": "mine", "SLURM_CONF": "/etc/slurm.conf"}
