"""Time `status` and `report` over many records beside a loop of json and pandas, and planning as many trials.

    python benchmarks/store.py --records 100 1000 10000 --turns 5

Records are the published ones with other seeds, 40 epochs and an attempt each. Cold is without the index, warm with it;
both have the page cache, and every command is a process of its own, whose start and imports count. The loop reads every
record with json, flattens it with pandas and groups it by method: it checks no digest and knows no state. Turns are
interleaved; what is printed is the median, in seconds of the clock and of the processor, and the loop's time over ours.
"""

import argparse
import hashlib
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from wsolbench import files, index, store
from wsolbench.trial import canonical

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "published" / "cub"
EPOCHS = 40

NAIVE = """
import glob, json, sys
import pandas
records = [json.load(open(path)) for path in glob.glob(sys.argv[1] + "/*/record.json")]
table = pandas.json_normalize(records)
print(table.groupby("trial.method")["results.wsolbench.top1_loc"].agg(["mean", "std", "count"]))
"""

PLAN = """
import sys, time
from pathlib import Path
from wsolbench import sweep
path = Path(sys.argv[1])
each = len(sweep.read(path, {}, seeds=[0]).trials)  # imports the plug-ins
started = time.perf_counter(), time.process_time()
sweep.read(path, {}, seeds=range(max(1, int(sys.argv[2]) // each)))
print(time.perf_counter() - started[0], time.process_time() - started[1])
"""


def generate(folder: Path, count: int) -> None:
    """A results folder of so many finished trials."""
    templates = [json.loads(path.read_bytes()) for path in sorted(PUBLISHED.glob("*/record.json"))]
    for number, template in zip(range(count), itertools.cycle(templates)):
        spec = {**template["trial"], "seed": number, "epochs": EPOCHS}
        name = hashlib.sha256(canonical(spec)).hexdigest()[:12]
        results = {p: {k: v + number % 7 * 0.01 for k, v in m.items()} for p, m in template["results"].items()}
        epochs = [{"epoch": e + 1, "loss": 5.0 / (e + 1), "seconds": 12.5 + number % 11} for e in range(EPOCHS)]
        body = {**template, "id": name, "trial": spec, "results": results, "epochs": epochs}
        body["weights_digest"] = hashlib.sha256(name.encode()).hexdigest()
        del body["digest"]
        attempt = folder / name / "attempts" / "0001"
        attempt.mkdir(parents=True)
        (folder / name / "trial.json").write_bytes(files.text(spec))
        (folder / name / "record.json").write_bytes(store.sealed(body))
        (attempt / "metrics.jsonl").write_bytes(b"".join(canonical(row) + b"\n" for row in epochs))
        (attempt / "exit.json").write_bytes(files.text({"kind": "done", "message": ""}))


def timed(*words: object) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a process takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    if ended.returncode not in {0, 3}:
        raise SystemExit(ended.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compared(folder: Path, turns: int) -> None:
    """Print the lines of one number of records."""
    out = ["--results", folder, "--out", folder.with_name("out")]
    status, report = ["-m", "wsolbench", "status", "--results", folder], ["-m", "wsolbench", "report", "methods", *out]
    cold = (folder / index.NAME).unlink
    lines: dict[str, tuple[list[Any], Callable[..., object]]] = {
        "json and pandas": (["-c", NAIVE, folder], lambda **_: None),
        "status, cold": (status, cold),
        "status, warm": (status, lambda **_: None),
        "report, cold": (report, cold),
        "report, warm": (report, lambda **_: None),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
    time.sleep(index.RACY + 0.5)  # a sweep is older than its table
    for _ in range(turns):
        for name, (words, before) in lines.items():
            before(missing_ok=True)
            taken[name].append(timed(*words))
    naive = median(clock for clock, _ in taken["json and pandas"])
    for name, times in taken.items():
        clock, processor = (median(column) for column in zip(*times, strict=True))
        print(f"  {name:18} {clock:8.3f} s  {processor:8.3f} s of the processor  {naive / clock:6.1f}x")


def planning(count: int) -> tuple[float, float]:
    """Seconds of clock and processor that planning the sweep of Table 1 takes, with seeds for about so many trials."""
    words = [sys.executable, "-c", PLAN, ROOT / "sweeps" / "drop-rate.yaml", str(count)]
    clock, processor = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return float(clock), float(processor)


def main() -> None:
    """Print a block for each number of records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args()
    for count in asked.records:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder) / "results", count)
            print(f"{count} records")
            compared(Path(folder) / "results", asked.turns)
            print("  {:18} {:8.3f} s  {:8.3f} s of the processor, beyond imports".format("plan", *planning(count)))


if __name__ == "__main__":
    main()
