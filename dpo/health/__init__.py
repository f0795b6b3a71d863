"""Dataset health: what pairs cannot teach, or teach wrongly, as sentences with numbers, each with its remedy.

Pure functions of what the stores know. Only pairs that training would use are judged; those that it leaves out are counted
apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from dpo.health import images, opinions, spread
from dpo.health.findings import FINE, MEND, Finding, UsedPairs, count

if TYPE_CHECKING:
    from dpo.catalogue import ImageFacts
    from dpo.picks import Agreement, Pick, PickedPair, Sides

__all__ = ["Finding", "check_health"]


def check_health(
    pairs: Sequence[PickedPair],
    facts: Mapping[str, ImageFacts],
    sides: Sides,
    agreement: Agreement,
    model: str,
    share: float,
    picks: Iterable[Pick] = (),
) -> list[Finding]:
    """What there is to say, worst first; nothing without pairs.

    `facts`: of the images of the pairs, by key; of those that are missing nothing is said. `model`: what is to be trained, as
    in TrainConfig. `share` of the prompts is kept for validation. `picks`: all that are live, to find those that contradict
    each other.
    """
    if not pairs:
        return []
    used = UsedPairs(pairs, facts)
    # Those of one severity stay in this order.
    found = [
        spread.check_missing(pairs), opinions.check_conflicts(pairs, used, picks), opinions.check_sides(sides),
        opinions.check_agreement(agreement), opinions.check_ties(sides), spread.check_unfinished(pairs),
    ]  # fmt: skip
    if used.places:
        found += [
            images.check_same_picture(used), images.check_prompts(used), images.check_models(used, model),
            images.check_both_sides(used), spread.check_skew(used), spread.check_validation(used, share),
            opinions.check_base_rejects(used), opinions.check_confidence(used), images.check_sizes(used),
            images.check_alike(used), images.check_repeats(used), images.check_unlike(used),
        ]  # fmt: skip
    findings = [finding for finding in found if finding]
    if used.places and all(finding.severity < MEND for finding in findings):
        pairs_of_prompts = f"{count(len(used.places), 'pair')} of {count(len(used.prompts), 'prompt')}"
        findings.insert(0, Finding("fine", FINE, f"{pairs_of_prompts}: nothing needs mending."))
    return sorted(findings, key=lambda finding: -finding.severity)
