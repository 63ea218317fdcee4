"""How costs grow: planning, `status`, `report` and `site` with the number of trials, memory with the number of images.

    python benchmarks/scale.py --records 100 1000 10000 --images 1000 4000 16000 --figure scale.png

Records are those of `store.py`. Every command is a process of its own; what it takes without a record, its start, is
taken off. Times are of the processor, the least of --turns. An evaluation is given made-up score maps batch by batch;
its memory is the most that its process ever held, less what it held after a first batch. Behind each number stands
how many times the one before it is, to be read beside how many times as many there are; `--figure` draws them.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from store import generate, planning, timed

from wsolbench import drawing, index

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


def growing_with_trials(counts: Sequence[int], turns: int) -> dict[str, list[float]]:
    """Seconds of the processor, of planning and of each command beyond its start, for each count."""
    found = {"plan": [planning(count)[1] for count in counts]}
    start = of_records(0, turns)
    taken = [of_records(count, turns) for count in counts]
    return found | {name: [max(each[name] - start[name], 0.001) for each in taken] for name in start}


def draw(
    trials: Sequence[int], seconds: Mapping[str, Sequence[float]], images: Sequence[int], mib: Sequence[float]
) -> bytes:
    """A PNG of both curves: seconds beside what grows linearly, and MiB from zero."""
    with drawing.style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
        for marker, (name, values) in zip("osD^", seconds.items(), strict=True):
            left.loglog(trials, values, marker=marker)
            left.annotate(f"  {name}", (trials[-1], values[-1]), va="center", annotation_clip=False)
        least = min(values[0] for values in seconds.values())
        left.loglog(trials, [least * count / trials[0] for count in trials], "k:", label="linear growth")
        left.set(xlabel="trials", ylabel="seconds of the processor")
        left.legend()
        right.plot(images, mib, "ko-")
        right.set(xlabel="images of an evaluation", ylabel="memory that it adds, MiB", xlim=(0, None), ylim=(0, None))
        for axis in (left.xaxis, left.yaxis, right.xaxis):
            axis.set_major_formatter("{x:,g}")
    return drawing.rendered(figure, "png")


def main() -> None:
    """Print the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 4_000, 16_000])
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--figure", type=Path, help="a PNG of the curves")
    asked = parser.parse_args()
    print("trials: seconds of the processor beyond those without a record")
    seconds = growing_with_trials(asked.records, asked.turns)
    for name, values in seconds.items():
        curve(name, asked.records, values, "{:.2f} s".format)
    print("images: memory that an evaluation adds")
    mib = [of_images(count) for count in asked.images]
    curve("evaluation", asked.images, mib, "{:.1f} MiB".format)
    if asked.figure:
        asked.figure.write_bytes(draw(asked.records, seconds, asked.images, mib))


if __name__ == "__main__":
    main()
