"""How costs grow: planning, `status`, `report` and `site` with the number of trials, memory with the number of images.

    python benchmarks/scale.py --records 100 1000 10000 --images 1000 4000 16000

Records are those of `store.py`. Every command is a process of its own; what it takes without a record, its start, is
taken off. Times are of the processor, the least of --turns. An evaluation is given made-up score maps batch by batch;
its memory is the most that its process ever held, less what it held after a first batch. Behind each number stands
how many times the one before it is, to be read beside how many times as many there are.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from store import generate, planning, timed

from wsolbench import index

EVALUATE = """
import resource, sys
import numpy as np
import torch
from wsolbench import evaluation, protocols
from wsolbench.dataset import Split
from wsolbench.truth import of_network
count = int(sys.argv[1])
boxes = np.array([[50.0, 40.0, 170.0, 180.0]])
sizes, names = np.full((count, 2), 224), tuple(map(str, range(count)))
split = Split(names, np.arange(count) % 200, tuple(map(str, range(200))), lambda _: None, sizes, (boxes,) * count)
rule = protocols.protocol("wsolbench_fixed")
truth = of_network(split, rule.geometry, 224)
def outputs(count):
    place = torch.linspace(-1, 1, 14) ** 2
    blob = (-4 * (place[:, None] + place[None])).exp()
    for start in range(0, count, 64):
        size = min(64, count - start)
        yield torch.randn(size, 200), blob + 0.1 * torch.rand(size, 14, 14)
evaluation.evaluate(evaluation.collect(outputs(64)), of_network(split.only(range(64)), rule.geometry, 224), rule)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluation.evaluate(evaluation.collect(outputs(count)), truth, rule)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def commands(results: Path) -> dict[str, list[object]]:
    """The words of each process."""
    asked = ["--results", results]
    return {
        "status": ["-m", "wsolbench", "status", *asked],
        "report": ["-m", "wsolbench", "report", "methods", *asked, "--out", results.with_name("reports")],
        "site": ["-m", "wsolbench", "site", *asked, "--out", results.with_name("site")],
    }


def least(words: Sequence[object], turns: int) -> float:
    """Seconds of the processor that a process takes."""
    return min(timed(*words)[1] for _ in range(turns))


def of_records(count: int, turns: int) -> dict[str, float]:
    """Seconds of the processor of each command."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        results.mkdir()
        generate(results, count)
        time.sleep(index.RACY + 0.5)
        return {name: least(words, turns) for name, words in commands(results).items()}


def of_images(count: int) -> float:
    """MiB that an evaluation adds to its process."""
    words = [sys.executable, "-c", EVALUATE, str(count)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def curve(name: str, counts: Sequence[int], values: Sequence[float], shown: Callable[[float], str]) -> None:
    """Print a line: a number for each count, and how it has grown."""
    said = [f"{counts[0]:,}: {shown(values[0])}"]
    for place in range(1, len(counts)):
        growth = f"{values[place] / values[place - 1]:.1f}x for {counts[place] / counts[place - 1]:.0f}x"
        said.append(f"{counts[place]:,}: {shown(values[place])} ({growth})")
    print(f"  {name:10} {'; '.join(said)}")


def main() -> None:
    """Print the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 4_000, 16_000])
    parser.add_argument("--turns", type=int, default=1)
    asked = parser.parse_args()
    print("trials: seconds of the processor beyond those without a record")
    curve("plan", asked.records, [planning(count)[1] for count in asked.records], "{:.2f} s".format)
    start = of_records(0, asked.turns)
    found = [of_records(count, asked.turns) for count in asked.records]
    for name in start:
        taken = [max(each[name] - start[name], 0.001) for each in found]
        curve(name, asked.records, taken, "{:.2f} s".format)
    print("images: memory that an evaluation adds")
    curve("evaluation", asked.images, [of_images(count) for count in asked.images], "{:.1f} MiB".format)


if __name__ == "__main__":
    main()
