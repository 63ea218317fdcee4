"""What differences mean: paired over seeds, paired over images, corrected for looking at many.

Numpy and scipy are imported when a difference is looked at: most tables have none.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST_SEEDS = 6
"""Below so many pairs no difference is called significant: 2 / 2**5 is above 5 %."""

LEVEL = 0.05
_EXACT = 20  # pairs of which every change of signs is tried; of more, so many are drawn:
_DRAWS = 2**16
_RESAMPLES = 9_999
_SAME = 1e-9  # sums this close, of all that they sum up, are equal but for rounding: accuracies lie on a grid

Interval = tuple[float, float]

BCA_COVERS = {2: 50, 3: 72, 4: 80, 5: 84, 6: 86, 8: 88, 10: 90, 15: 92, 20: 93, 30: 94}
"""How often, in %, the BCa interval of so many normal differences holds their mean (`benchmarks/intervals.py`)."""


@dataclass(frozen=True)
class Paired:
    """Differences over pairs of seeds, and what they say of their mean."""

    differences: tuple[float, ...]

    @property
    def n(self) -> int:
        """Pairs."""
        return len(self.differences)

    @property
    def mean(self) -> float:
        """Of the differences."""
        return math.fsum(self.differences) / self.n

    @property
    def sd(self) -> float | None:
        """Of the differences, ddof 1; None of one pair."""
        if self.n == 1:
            return None
        return math.sqrt(math.fsum((each - self.mean) ** 2 for each in self.differences) / (self.n - 1))

    @property
    def interval(self) -> Interval | None:
        """Student's 95 % interval of the mean, exact for normal differences; None where all are the same, as of one."""
        if self.sd is None or self._alike:
            return None
        from scipy.special import stdtrit  # noqa: PLC0415

        half = float(stdtrit(self.n - 1, 1 - LEVEL / 2)) * self.sd / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    @cached_property
    def bca(self) -> Interval | None:
        """The BCa 95 % interval of the mean (Efron, JASA 1987), far too narrow over few pairs: `BCA_COVERS`."""
        if self._alike:
            return None
        import numpy as np  # noqa: PLC0415
        from scipy.stats import bootstrap  # noqa: PLC0415  it takes half a second

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of resamples that are all the same: few seeds have some
            found = bootstrap((self.differences,), np.mean, n_resamples=_RESAMPLES, method="BCa", rng=0)
        ends = float(found.confidence_interval.low), float(found.confidence_interval.high)
        return ends if all(map(math.isfinite, ends)) else None

    @cached_property
    def p(self) -> float:
        """Of the two-sided sign-flip test of no difference, exact for up to 20 pairs."""
        import numpy as np  # noqa: PLC0415

        sums, drawn = (_every_sum(self.differences), 0) if self.n <= _EXACT else (_drawn_sums(self.differences), 1)
        slack = _SAME * math.fsum(map(abs, self.differences))
        far = np.abs(sums) >= abs(math.fsum(self.differences)) - slack
        return float((far.sum() + drawn) / (len(far) + drawn))

    @property
    def _alike(self) -> bool:
        """Whether all differences are the same, but for rounding."""
        return max(self.differences) - min(self.differences) <= 1e-12 * max(map(abs, self.differences))

    def significant(self, p: float) -> bool:
        """Whether a difference with this corrected p may be called so."""
        return self.n >= LEAST_SEEDS and p < LEVEL


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """How much higher `ours` are than `theirs`, pair by pair."""
    return Paired(tuple(float(one) - float(other) for one, other in zip(ours, theirs, strict=True)))


def bca_covers(n: int) -> int:
    """How often, in %, the BCa interval of n pairs or somewhat fewer holds the mean of normal differences."""
    return BCA_COVERS[max(pairs for pairs in BCA_COVERS if pairs <= max(n, 2))]


def _every_sum(differences: Sequence[float]) -> "NDArray[np.float64]":
    """Of the differences, under each change of their signs."""
    import numpy as np  # noqa: PLC0415

    sums = np.zeros(1)
    for each in differences:
        sums = np.concatenate([sums - each, sums + each])
    return sums


def _drawn_sums(differences: Sequence[float]) -> "NDArray[np.float64]":
    """Of the differences, under changes of their signs drawn at random."""
    import numpy as np  # noqa: PLC0415
    from scipy.stats import permutation_test  # noqa: PLC0415

    drawn = permutation_test(
        (differences,), np.sum, permutation_type="samples", vectorized=True, n_resamples=_DRAWS, rng=0
    )
    return np.asarray(drawn.null_distribution)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, corrected for there being so many (Holm, Scandinavian Journal of Statistics 1979)."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


@dataclass(frozen=True)
class Discordance:
    """Images on which two trials differ, and the exact p of McNemar's test that neither is better."""

    ours: int  # images that only ours gets right
    theirs: int
    both: int
    neither: int
    p: float


def mcnemar(ours: "NDArray[np.bool_]", theirs: "NDArray[np.bool_]") -> Discordance:
    """Two trials on the same images, from what each gets right (McNemar, Psychometrika 1947)."""
    from scipy.stats import binomtest  # noqa: PLC0415

    b, c = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p = float(binomtest(b, b + c).pvalue) if b + c else 1.0
    return Discordance(b, c, int((ours & theirs).sum()), int((~ours & ~theirs).sum()), p)


def standard_error(percent: float, images: int) -> float:
    """Of a share of so many images, in points: how far it may be from that of all possible ones."""
    return math.sqrt(percent * (100 - percent) / images)
