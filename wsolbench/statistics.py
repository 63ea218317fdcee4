"""What differences mean: paired over seeds, paired over images, corrected for looking at many.

Numpy and scipy are imported when a difference is looked at: most tables have none.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST_SEEDS = 6
"""Below so many pairs no difference is called significant: 2 / 2**5 is above 5 %."""

LEVEL = 0.05
_EXACT = 2**16  # sign changes that are all tried; of more seeds than 16 so many are drawn
_DRAWS = 9_999


@dataclass(frozen=True)
class Paired:
    """A difference over pairs of seeds.

    Args:
        n: pairs.
        mean: of the differences.
        sd: of the differences, ddof 1; None of one pair.
        low: end of the BCa 95 % interval of the mean; None where all differences are the same, as of one pair.
        high: the other end.
        p: of the two-sided sign-flip test of no difference.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    p: float

    def significant(self, p: float) -> bool:
        """Whether a difference with this corrected p may be called so."""
        return self.n >= LEAST_SEEDS and p < LEVEL


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """How much higher `ours` are than `theirs`, pair by pair; exact for up to 16 pairs."""
    import numpy as np  # noqa: PLC0415

    differences = np.subtract(ours, theirs)
    n = len(differences)
    mean = math.fsum(differences) / n
    low, high = _interval(differences)
    return Paired(n, mean, float(differences.std(ddof=1)) if n > 1 else None, low, high, _sign_flip(differences))


def _sign_flip(differences: "NDArray[np.float64]") -> float:
    """Share of the sign changes with a mean at least as far from 0."""
    if len(differences) == 1 or not differences.any():
        return 1.0
    import numpy as np  # noqa: PLC0415
    from scipy.stats import permutation_test  # noqa: PLC0415  it takes half a second

    found = permutation_test(
        (differences,), np.mean, permutation_type="samples", vectorized=True, n_resamples=_EXACT, rng=0
    )
    return float(found.pvalue)


def _interval(differences: "NDArray[np.float64]") -> tuple[float | None, float | None]:
    """The BCa 95 % interval of the mean (Efron, JASA 1987)."""
    import numpy as np  # noqa: PLC0415

    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        return None, None
    from scipy.stats import bootstrap  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples that are all the same: few seeds have some
        found = bootstrap((differences,), np.mean, n_resamples=_DRAWS, method="BCa", rng=0).confidence_interval
    return (float(found.low), float(found.high)) if np.isfinite([found.low, found.high]).all() else (None, None)


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
