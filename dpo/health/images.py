"""What the images of the pairs show, by what was written down when they were scanned and decoded; no file is opened.

Two images are the same picture if their pixels are. How alike others are, the bits tell in which their hashes differ.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from dpo.foreign_models import model_stem
from dpo.groups import ASPECT_TOLERANCE
from dpo.health.findings import KNOW, MEND, WRONG, Finding, UsedPairs, count
from dpo.pairs import same_words

ALIKE, UNLIKE = 4, 28  # of 64 bits that differ: at most, at least. Of unrelated pictures about 32 do.


def check_same_picture(used: UsedPairs) -> Finding | None:
    same = used.pictures[:, 0] == used.pictures[:, 1]
    number = int(same.sum())
    if not number:
        return None
    return Finding(
        "same_picture", WRONG, f"{used.some(number)} {'has' if number == 1 else 'have'} the very same picture on both sides.",
        "Delete them: there is nothing to prefer.", used.where(same),
    )  # fmt: skip


def check_both_sides(used: UsedPairs) -> Finding | None:
    chosen, rejected = used.pictures[used.pictures[:, 0] != used.pictures[:, 1]].T
    torn = np.intersect1d(chosen, rejected)
    if not len(torn):
        return None
    pairs = used.where(np.isin(used.pictures, torn).any(1))
    return Finding(
        "chosen_and_rejected", MEND, f"{count(len(torn), 'picture')} {'is' if len(torn) == 1 else 'are'} chosen in one pair and "
        f"rejected in another, {count(len(pairs), 'pair')} in all.",
        "Look at them: that is right for an image between a better and a worse one. Delete the pairs where it is not.", pairs,
    )  # fmt: skip


def check_repeats(used: UsedPairs) -> Finding | None:
    """Pictures that are several times on the same side."""
    repeated, pictures = np.zeros(len(used.places), bool), 0
    for side in used.pictures.T:
        _, index, times = np.unique(side, return_inverse=True, return_counts=True)
        repeated |= times[index] > 1
        pictures += int((times > 1).sum())
    if not pictures:
        return None
    return Finding(
        "repeated", KNOW, f"{count(pictures, 'picture')} {'is' if pictures == 1 else 'are'} on the same side of several pairs, "
        f"{count(int(repeated.sum()), 'pair')} in all; training sees {'it' if pictures == 1 else 'them'} that often.",
        "Keep the pairs that say most and delete the others, unless you want these pictures to weigh more.", used.where(repeated),
    )  # fmt: skip


def check_prompts(used: UsedPairs) -> Finding | None:
    texts = {image.prompt for images in used.facts for image in images if image}
    words = {text: same_words(text) for text in texts}
    differ = np.array(
        [None not in images and len({words[image.prompt] for image in images} - {""}) == 2 for images in used.facts], bool
    )
    number = int(differ.sum())
    if not number:
        return None
    return Finding(
        "prompts_differ", WRONG if number > 0.05 * len(differ) else MEND,
        f"{used.some(number)} {'compares' if number == 1 else 'compare'} images that were made from different prompts.",
        "Delete them: training takes both for pictures of the chosen one's prompt.",
        used.where(differ),
    )  # fmt: skip


def check_sizes(used: UsedPairs) -> Finding | None:
    chosen, rejected = used.sizes[:, 0], used.sizes[:, 1]
    has_sizes = (used.sizes > 0).all((1, 2))
    differ = has_sizes & (chosen != rejected).any(1)
    number = int(differ.sum())
    if not number:
        return None
    ratios = np.divide(used.sizes[:, :, 0], used.sizes[:, :, 1], out=np.ones((len(differ), 2)), where=has_sizes[:, None])
    shapes = int((ratios.max(1) > ratios.min(1) * (1 + ASPECT_TOLERANCE)).sum())
    also = f", {shapes:,} of them of different shapes" if shapes else ""
    return Finding(
        "sizes_differ", MEND if shapes else KNOW,
        f"{used.some(number)} {'compares' if number == 1 else 'compare'} images of different sizes{also}.",
        "Training scales and crops the rejected image to the chosen one's size. Delete those where size or crop made the choice.",
        used.where(differ),
    )  # fmt: skip


def check_alike(used: UsedPairs) -> Finding | None:
    same_size = (used.sizes[:, 0] == used.sizes[:, 1]).all(1)
    alike = (used.bits >= 0) & (used.bits <= ALIKE) & same_size & (used.pictures[:, 0] != used.pictures[:, 1])
    number = int(alike.sum())
    if not number:
        return None
    return Finding(
        "alike", MEND if number > 0.2 * len(alike) else KNOW,
        f"{used.some(number)} {'differs' if number == 1 else 'differ'} very little: at most {ALIKE} of the 64 bits of a hash of "
        "their brightness.",
        "A small difference teaches well if it is what you judged, such as a hand. Delete the pairs where you see none.",
        used.where(alike),
    )  # fmt: skip


def check_unlike(used: UsedPairs) -> Finding | None:
    looked_at, unlike = int((used.bits >= 0).sum()), used.bits >= UNLIKE
    number = int(unlike.sum())
    if not number:
        return None
    left = len(used.places) - looked_at
    unseen = f" {count(left, 'pair')} {'was' if left == 1 else 'were'} not looked at yet." if left else ""
    return Finding(
        "unlike", KNOW, f"{number:,} of {count(looked_at, 'pair')} ({number / looked_at:.0%}) have nothing in common in their "
        f"layout. Images of different seeds look like that, so it is no fault.{unseen}",
        "But they differ in everything at once, so each says little of what you liked: it takes more of them than of pairs "
        "of one seed with other settings, or of image to image.",
        used.where(unlike),
    )  # fmt: skip


def check_models(used: UsedPairs, model: str) -> Finding | None:
    """By the stems of file names; the same model under another name looks foreign."""
    wanted = model_stem(model)
    stems = {name: model_stem(name) for name in {image.model for images in used.facts for image in images if image}}
    named = Counter(stems[image.model] for images in used.facts for image in images if image)
    unknown = 2 * len(used.places) - sum(named.values()) + named.pop("", 0)
    foreign = sum(named.values()) - named.pop(wanted, 0)
    total = count(2 * len(used.places), "image")
    if not foreign and unknown <= len(used.places):
        return None
    if not foreign:
        return Finding(
            "model_unknown", KNOW, f"{unknown:,} of {total} do not say which model made them.",
            f"Pairs teach most if {wanted} made their images: images of another model also teach to look like that one.",
        )  # fmt: skip
    mask = np.array([any(image and stems[image.model] not in ("", wanted) for image in images) for images in used.facts], bool)
    names = ", ".join(f"{number:,} by {name[:60]}" for name, number in named.most_common(2))
    more = f" and {len(named) - 2:,} more" if len(named) > 2 else ""
    return Finding(
        "other_model", MEND if foreign > 0.1 * 2 * len(used.places) else KNOW,
        f"{foreign:,} of {total} {'was' if foreign == 1 else 'were'} made by another model than {wanted}: {names}{more}."
        + (f" {unknown:,} {'does' if unknown == 1 else 'do'} not say." if unknown else ""),
        "File names are compared, so it may be the same model under another name. If not, generate images with the model you "
        "train, or train the one that made these: otherwise the adapter also learns to look like it.",
        used.where(mask),
    )  # fmt: skip
