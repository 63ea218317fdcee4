"""Which finished trials stand against which: those of one seed that are equal in all that chose neither."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsolbench.errors import InputError
from wsolbench.known import NO_SETTINGS
from wsolbench.selection import Record, check_filters, diverged, fits, natural
from wsolbench.table import named_seeds, shown

_Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Side:
    """What a user calls one set of trials, and the fields that choose them."""

    words: str
    filters: Mapping[str, Any]


@dataclass(frozen=True)
class Pairs:
    """Trials of both sides by seed, equal in all settings that both have and no side is chosen by."""

    equal: _Key
    seeds: Mapping[int, tuple[Record, Record]]

    def ids(self, side: int) -> tuple[str, ...]:
        """The trials of one side, by seed."""
        return tuple(str(pair[side]["id"]) for pair in self.seeds.values())


def paired(records: Sequence[Record], sides: tuple[Side, Side]) -> tuple[list[Pairs], list[str]]:
    """The pairs of each setting that both sides have, and a sentence for whatever has no partner.

    Args:
        records: one per finished trial, in any order.
        sides: of the pairs, in their order.

    Raises:
        InputError: a field is unknown, a side is empty or has two trials of one seed, or nothing pairs.
    """
    for side in sides:
        check_filters(side.filters, records)
    fitting = tuple([record for record in records if fits(record, side.filters)] for side in sides)
    chosen = tuple([record for record in found if not diverged(record)] for found in fitting)
    problems = [
        f"all trials that fit {side.words!r} diverged" if fit else f"no finished trial fits {side.words!r}"
        for side, fit, found in zip(sides, fitting, chosen, strict=True)
        if not found
    ]
    if not problems and {str(record["id"]) for record in chosen[0]} & {str(record["id"]) for record in chosen[1]}:
        problems = [f"{sides[0].words!r} and {sides[1].words!r} choose some of the same trials"]
    if problems:
        raise InputError(*problems)
    shared = _shared(sides, [*chosen[0], *chosen[1]])
    groups = tuple(by_setting(side, found, shared) for side, found in zip(sides, chosen, strict=True))
    pairs, alone = _of_settings(sides, groups[0], groups[1])
    if not pairs:
        raise InputError(*alone)
    lost = ((side, r) for side, found in zip(sides, fitting, strict=True) for r in found if diverged(r))
    return pairs, [*alone, *(f"{side.words!r}, seed {r['seed']}: diverged, trial {r['id']}" for side, r in lost)]


def _shared(sides: Iterable[Side], records: Iterable[Record]) -> list[str]:
    """The settings that every trial has and no side is chosen by."""
    names = set.intersection(*(set(record) for record in records)) - NO_SETTINGS
    return sorted(names.difference(*(side.filters for side in sides)))


def by_setting(side: Side, records: Iterable[Record], shared: Sequence[str]) -> dict[_Key, dict[int, Record]]:
    """The trials of a side by their shared settings and then by seed."""
    groups: dict[_Key, dict[int, Record]] = {}
    several: dict[str, set[str]] = {}
    for record in sorted(records, key=lambda record: (record["seed"], str(record["id"]))):
        group = groups.setdefault(tuple((name, shown(record[name])) for name in shared), {})
        other = group.setdefault(record["seed"], record)
        if other["id"] != record["id"]:
            for name in (other.keys() | record.keys()) - NO_SETTINGS:
                several.setdefault(name, set()).update(shown(r[name]) for r in (other, record) if name in r)
    differ = [f"{name} ({', '.join(sorted(v, key=natural))})" for name, v in sorted(several.items()) if len(v) > 1]
    if several:
        several_trials = f"{side.words!r} fits several trials of one seed: they differ in {', '.join(differ)}"
        raise InputError(f"{several_trials}; say which, such as {side.words + ' FIELD=VALUE'!r}")
    return groups


def _of_settings(
    sides: tuple[Side, Side], ours: dict[_Key, dict[int, Record]], theirs: dict[_Key, dict[int, Record]]
) -> tuple[list[Pairs], list[str]]:
    """The pairs of each setting that both sides have, and a sentence for whatever has no partner."""
    pairs = []
    for key in sorted(ours.keys() & theirs.keys(), key=lambda key: [natural(value) for _, value in key]):
        seeds = sorted(ours[key].keys() & theirs[key].keys())
        if seeds:
            pairs.append(Pairs(key, {seed: (ours[key][seed], theirs[key][seed]) for seed in seeds}))
    alone = [
        *_alone(sides[0], ours, theirs),
        *_alone(sides[1], theirs, ours),
    ]
    return pairs, alone


def _alone(side: Side, own: dict[_Key, dict[int, Record]], others: dict[_Key, dict[int, Record]]) -> list[str]:
    found = []
    for key, trials in own.items():
        lacking = sorted(trials.keys() - others.get(key, {}).keys())
        if lacking:
            why = "the other side has no such seed" if key in others else _nearest(key, others)
            found.append(f"{side.words!r}, {named_seeds(lacking)}: no partner, {why}")
    return found


def _nearest(key: _Key, others: Iterable[_Key]) -> str:
    """In what the most similar trials of the other side differ."""
    differing = [[(a, b) for a, b in zip(key, other, strict=True) if a != b] for other in others]
    least = (f"{name} ({own}, there {value})" for (name, own), (_, value) in min(differing, key=len))
    return f"the other side differs in {', '.join(least)}"
