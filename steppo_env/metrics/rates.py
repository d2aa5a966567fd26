"""What a sample of successes and failures says of a success rate."""

import math
from statistics import NormalDist

from steppo_env.errors import InvalidInput

__all__ = ["pass_at_k", "pass_hat_k", "wilson_interval"]


def pass_at_k(num_samples: int, num_successes: int, k: int) -> float:
    """Return the unbiased estimate of the chance that one of `k` samples succeeds.

    1 - C(n - c, k) / C(n, k), from n samples with c successes (Chen et al. 2021, arXiv 2107.03374,
    equation 1).

    Raises:
        InvalidInput: Not 0 <= num_successes <= num_samples, or not 1 <= k <= num_samples.

    Of the 6 pairs out of 4 samples, 3 hold the one success:

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    _check_draw("pass@k", num_samples, num_successes, k)
    return 1.0 - math.comb(num_samples - num_successes, k) / math.comb(num_samples, k)


def pass_hat_k(num_samples: int, num_successes: int, k: int) -> float:
    """Return the unbiased estimate of the chance that all of `k` samples succeed: pass^k.

    C(c, k) / C(n, k), from n samples with c successes (Yao et al. 2024, tau-bench, arXiv
    2406.12045). Where pass@k asks what a policy can do, pass^k asks what it can be relied on for.

    Raises:
        InvalidInput: Not 0 <= num_successes <= num_samples, or not 1 <= k <= num_samples.

    Of the 6 pairs out of 4 samples, 3 hold two of the three successes:

    >>> pass_hat_k(4, 3, 2)
    0.5
    """
    _check_draw("pass^k", num_samples, num_successes, k)
    return math.comb(num_successes, k) / math.comb(num_samples, k)


def _check_draw(name: str, num_samples: int, num_successes: int, k: int) -> None:
    if not 0 <= num_successes <= num_samples or not 1 <= k <= num_samples:
        raise InvalidInput(
            f"{name} needs 0 <= num_successes <= num_samples and 1 <= k <= num_samples; got "
            f"num_samples={num_samples}, num_successes={num_successes}, k={k}"
        )


def wilson_interval(
    num_successes: int, num_trials: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Return Wilson's score interval of a success rate; (0, 1) without trials.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), for p = successes / n and
    the normal quantile z (Wilson 1927). It takes trials to be independent: where tasks have several
    samples each, `bootstrap_interval` with the tasks as clusters does not.

    Raises:
        InvalidInput: Not 0 <= num_successes <= num_trials, or not 0 < confidence < 1.

    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 4), round(high, 4)
    (0.4902, 0.9433)
    """
    if not 0 <= num_successes <= num_trials or not 0.0 < confidence < 1.0:
        raise InvalidInput(
            "needs 0 <= num_successes <= num_trials and 0 < confidence < 1; got "
            f"{num_successes} of {num_trials} at {confidence}"
        )
    if num_trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = num_successes / num_trials
    scale = 1 + z * z / num_trials
    centre = (rate + z * z / (2 * num_trials)) / scale
    spread = z / scale * math.sqrt(rate * (1 - rate) / num_trials + (z / (2 * num_trials)) ** 2)
    # At 0 or all successes the bound is exact; keep rounding from crossing it.
    low = 0.0 if num_successes == 0 else max(0.0, centre - spread)
    high = 1.0 if num_successes == num_trials else min(1.0, centre + spread)
    return low, high
