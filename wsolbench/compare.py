"""Two sets of finished trials, paired: by seed, where everything else is equal, and image by image."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wsolbench import protocols, statistics
from wsolbench.beside import bca_note, ends
from wsolbench.metrics import HIT
from wsolbench.pairing import Pairs, Side, paired
from wsolbench.selection import Record, metric
from wsolbench.table import SIGNIFICANT, Cell, Heading, Report, Row, Table, named_seeds, sentences, spelled

Arrays = Callable[[str], Mapping[str, Any]]
"""What is known of each image of a trial, as `Store.arrays` of its predictions."""


def compare(
    records: Sequence[Record], sides: tuple[Side, Side], metrics: Sequence[str], arrays: Arrays
) -> tuple[Report, list[str]]:
    """How far apart the two sides are, over seeds and over images, and a sentence for what has no partner.

    Args:
        records: one per finished trial, in any order.
        sides: of which the second is subtracted from the first.
        metrics: their names; a row for each.
        arrays: gives what is known of each image of a trial.

    Raises:
        InputError: a field is unknown, a side is empty or has two trials of one seed, or nothing pairs.
    """
    pairs, alone = paired(records, sides)
    tables = []
    for found in pairs:
        tables += [_over_seeds(found, sides, metrics), _over_images(found, sides, arrays)]
    filled = tuple(table for table in tables if table.blocks != ((),))
    return Report(f"{sides[0].words} against {sides[1].words}", filled), alone


def _over_seeds(found: Pairs, sides: tuple[Side, Side], metrics: Sequence[str]) -> Table:
    values = {name: _values(found, name) for name in metrics}
    tested = {name: statistics.paired(*zip(*pairs, strict=True)) for name, pairs in values.items() if pairs}
    corrected = dict(zip(tested, statistics.holm([difference.p for difference in tested.values()]), strict=True))
    rows = [_row(name, found, values[name], tested[name], corrected[name]) for name in tested]
    few = f"with fewer than {statistics.LEAST_SEEDS} pairs no difference is called significant"
    notes = [
        "Difference: paired by seed, with its 95 % interval by Student's t.",
        *([bca_note(tested.values())] if tested else []),
        "p is of the exact two-sided sign-flip test.",
        "p (Holm) is corrected over the rows.",
        *([sentences(few)] if len(found.seeds) < statistics.LEAST_SEEDS else []),
        *([f"{SIGNIFICANT}: significant at 5 %."] if any(row.cells[2].significant for row in rows) else []),
        *(f"No trial has {name}." for name in metrics if name not in tested),
    ]
    headings = (
        *(Heading(side.words) for side in sides),
        *(
            Heading(text, signed=True)
            for text in ("Difference", "95 % from", "95 % to", "BCa 95 % from", "BCa 95 % to")
        ),
        *(Heading(text, decimals=4, p=True) for text in ("p", "p (Holm)")),
    )
    return Table("Over seeds", _caption(found), ("Metric",), headings, (tuple(rows),), {}, tuple(notes), ())


def _values(found: Pairs, name: str) -> list[tuple[float, float]]:
    both = [(metric(ours, name), metric(theirs, name)) for ours, theirs in found.seeds.values()]
    return [(ours, theirs) for ours, theirs in both if ours is not None and theirs is not None]


def _row(name: str, found: Pairs, values: Sequence[tuple[float, float]], tested: statistics.Paired, p: float) -> Row:
    means = (Cell.of([pair[side] for pair in values], found.ids(side)) for side in range(2))
    difference = Cell(tested.mean, tested.sd, tested.n, significant=tested.significant(p))
    limits = (*ends(tested.interval), *ends(tested.bca))
    return Row((name,), tuple(found.seeds), (*means, difference, *limits, Cell(tested.p), Cell(p)))


def _caption(found: Pairs) -> str:
    equal = ", ".join(f"{spelled(name)} {value}" for name, value in found.equal)
    return sentences(named_seeds(found.seeds), f"equal: {equal}", "in %")


def _over_images(found: Pairs, sides: tuple[Side, Side], arrays: Arrays) -> Table:
    """Top-1 Loc image by image, a row for each seed whose trials know the same images."""
    tested: dict[int, statistics.Discordance] = {}
    lacking = []
    for seed, pair in found.seeds.items():
        ours, theirs = (_hits(arrays(str(record["id"])), str(record["protocol"])) for record in pair)
        if ours is None or theirs is None or ours[0] != theirs[0]:
            lacking.append(str(seed))
        else:
            tested[seed] = statistics.mcnemar(ours[1], theirs[1])
    notes = [
        "p is of McNemar's exact test over the images of one seed: of these two networks, not of what trained them.",
        "p (Holm) is corrected over the seeds.",
    ]
    if lacking:
        notes.append(f"Seeds without predictions of the same images: {', '.join(lacking)}.")
    headings = (
        *(Heading(f"only {side.words}", decimals=0) for side in sides),
        *(Heading(text, decimals=0) for text in ("both", "neither")),
        *(Heading(text, decimals=4, p=True) for text in ("p", "p (Holm)")),
    )
    corrected = statistics.holm([image.p for image in tested.values()])
    rows = [
        Row((str(seed),), (seed,), tuple(map(Cell, (d.ours, d.theirs, d.both, d.neither, d.p, p))))
        for (seed, d), p in zip(tested.items(), corrected, strict=True)
    ]
    caption = sentences("images with the right class and a right box, of the trials above")
    return Table("Over images, Top-1 Loc", caption, ("Seed",), headings, (tuple(rows),), {}, tuple(notes), ())


def _hits(known: Mapping[str, Any], protocol: str) -> tuple[list[str], Any] | None:
    """The images of a trial, and which of them have the right class and a right box; None where that is not known."""
    top5 = f"{protocols.protocol(protocol).geometry}/test/top5"
    if not {"ids", "labels", f"{protocol}/iou", top5} <= known.keys():
        return None
    right = known[top5][:, 0] == known["labels"]
    return known["ids"].tolist(), right & (known[f"{protocol}/iou"] >= HIT)
