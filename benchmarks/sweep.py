"""Compare a sweep's local workers with a fresh process for each trial; both keep all cores busy, side by side.

    python benchmarks/sweep.py dataset=shapes backbone=tiny method=adl epochs=1 lr_steps=[] --trials 60 --pairs 1

The trials differ by their seeds. One arm starts `wsolbench run` for each, as many at a time as there are
cores; the other is one `wsolbench sweep`, with its own start. The results must be equal. What a start alone takes, a
process that imports everything and ends, is printed beside.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

from wsolbench.store import Store

CORES = len(os.sched_getaffinity(0))


def call(*words: object) -> None:
    """Run Python with these words; its messages are its own."""
    subprocess.run([sys.executable, *map(str, words)], check=True, capture_output=True)


def fresh(results: Path, settings: list[str], trials: int) -> None:
    """Each trial in a process of its own."""

    def one(seed: int) -> None:
        call("-m", "wsolbench", "run", *settings, f"seed={seed}", "--results", results)

    with ThreadPoolExecutor(CORES) as threads:
        list(threads.map(one, range(trials)))


def packed(results: Path, settings: list[str], trials: int) -> None:
    """All trials as one sweep."""
    file = results.with_suffix(".yaml")
    base = ", ".join(each.replace("=", ": ", 1) for each in settings)
    file.write_text(f"base: {{{base}}}\ngrid: {{seed: {list(range(trials))}}}\n", encoding="utf-8")
    call("-m", "wsolbench", "sweep", file, "--results", results)


def seconds(arm: Callable[[], None]) -> tuple[float, float]:
    """How long an arm takes, and of the processor, which other processes on the machine matter less to."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    arm()
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def digests(results: Path) -> list[str]:
    """The weights of all trials, in order."""
    return [record["weights_digest"] for record in Store(results).records()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="of every trial")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=1)
    asked = parser.parse_args()
    clock, processor, equal = [], [], True
    with tempfile.TemporaryDirectory() as folder:
        packed(Path(folder, "first"), asked.settings, 1)  # draws the images, compiles
        for pair in range(asked.pairs):
            places = Path(folder, f"fresh{pair}"), Path(folder, f"packed{pair}")
            pairs = zip((fresh, packed), places, strict=True)
            taken = [seconds(partial(arm, place, asked.settings, asked.trials)) for arm, place in pairs]
            for ratios, theirs, ours in zip((clock, processor), *taken, strict=True):
                ratios.append(theirs / ours)
            equal &= digests(places[0]) == digests(places[1]) and len(digests(places[0])) == asked.trials
    alone, _ = seconds(lambda: call("-c", "import wsolbench.job"))
    print(f"{asked.trials} trials of {' '.join(asked.settings)} on {CORES} cores; equal weights: {equal}")
    spread = f"{min(clock):.2f} to {max(clock):.2f}"
    print(f"sweep: {median(clock):.2f}x (median of {asked.pairs} pairs; {spread})")
    print(f"  of the processor: {median(processor):.2f}x")
    print(f"  a start alone, over a trial of the sweep: {alone / (taken[1][0] * CORES / asked.trials):.2f}")


if __name__ == "__main__":
    main()
