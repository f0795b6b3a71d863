"""How sure a mean over pairs is, when pairs of one prompt resemble each other. No torch.

95% intervals from the spread between prompts, not between pairs: what a prompt's pairs have in common is no evidence twice.
(dpo/compare.py has the bootstrap for its votes; with the few prompts of a validation, that is too narrow.)
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

# 97.5% quantile of Student's t for 1, 2, ... degrees of freedom
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def mean_interval(values: Sequence[float], prompts: Sequence[Hashable]) -> tuple[float, float] | None:
    """(low, high) of the mean of `values`; `prompts` says which prompt each is of. None with fewer than two prompts.

    The t-interval with the cluster-robust standard error (Cameron & Miller 2015, section II): deviations from the mean are
    summed within a prompt before they are squared; degrees of freedom: prompts less one.
    """
    mean, variance, count = _spread(values, prompts)
    if count < 2:
        return None
    half = t_quantile(count - 1) * math.sqrt(variance / count)
    return mean - half, mean + half


def share_interval(values: Sequence[float], prompts: Sequence[Hashable]) -> tuple[float, float]:
    """The same for values from 0 to 1, such as right or wrong, within [0, 1]. One prompt says nothing: (0, 1).

    Eight prompts all right would have no spread, and so an interval without width. As Agresti & Coull (1998) do for a share of
    independent trials, what was seen is joined by a coin: one more prompt, whose share is 1/2 more or less and whose variance
    is that of a single trial.
    """
    mean, variance, count = _spread(values, prompts)
    if count < 2:
        return 0.0, 1.0
    share = (count * mean + 0.5) / (count + 1)
    variance = ((count - 1) * variance + share * (1 - share)) / count
    half = t_quantile(count - 1) * math.sqrt(variance / count)
    return max(0.0, mean - half), min(1.0, mean + half)


def t_quantile(freedom: int) -> float:
    """97.5% quantile of Student's t; from 11 degrees of freedom on within 0.003 (Abramowitz & Stegun 26.7.5)."""
    return _T[freedom - 1] if freedom <= len(_T) else 1.960 + 2.372 / freedom + 2.823 / freedom**2


def _spread(values: Sequence[float], prompts: Sequence[Hashable]) -> tuple[float, float, int]:
    """(mean, variance between prompts, number of prompts); a prompt with more values counts for more."""
    mean = math.fsum(values) / len(values)
    deviations: dict[Hashable, float] = {}
    for value, prompt in zip(values, prompts, strict=True):
        deviations[prompt] = deviations.get(prompt, 0.0) + value - mean
    count = len(deviations)
    size = len(values) / count
    return mean, math.fsum(total**2 for total in deviations.values()) / (size**2 * max(1, count - 1)), count
