import random
import time

import pytest

from dpo.catalogue import ImageFacts
from dpo.health import check_health
from dpo.operations import Pick
from dpo.pairs import Pair, held_out_prompts
from dpo.picks import Agreement, PickedPair, Sides
from dpo.project import open_project
from tests.pictures import paint_folder

SILENT = Sides(0, 0, 0)
NOBODY = Agreement(0, 0, None)
SHARE = 0.1


def picked(number: int, prompt: str | None = None, **fields) -> PickedPair:
    """Pair `number`, of images 2 * number (chosen) and 2 * number + 1."""
    prompt = f"prompt {number}" if prompt is None else prompt
    chosen, rejected = fields.pop("keys", (key(2 * number), key(2 * number + 1)))
    pair = Pair(prompt, f"{chosen}.png", f"{rejected}.png" if rejected else "", fields.pop("confidence", 0.9))
    values = {"rater": "", "made": 0.0, "position": number, "state": "used", "is_swapped": False, "missing": ()} | fields
    return PickedPair(pair, f"group-{prompt}", chosen, rejected, **values, is_validation=False)


def key(number: int) -> str:
    return f"{number:08x}"


def image(number: int, **fields) -> ImageFacts:
    """The images of a pair differ in 16 bits: neither alike nor unlike."""
    values = {
        "path": f"{key(number)}.png", "width": 512, "height": 512, "prompt": f"prompt {number // 2}", "model": "demo",
        "generator": "a1111", "digest": f"{number:032x}", "dhash": 0xFFFF * (number % 2),
    }  # fmt: skip
    return ImageFacts(**values | fields)


def facts_of(count: int, **changed: dict) -> dict[str, ImageFacts]:
    """Of the images of pairs 0 to count - 1. `changed`: i12={...} are other fields of image 12."""
    return {key(number): image(number, **changed.get(f"i{number}", {})) for number in range(2 * count)}


def pick(position: int, chosen: int, rejected: int, rater: str = "", op: str = "duel", also: tuple[int, ...] = ()) -> Pick:
    keys = tuple(key(number) for number in (chosen, rejected, *also))
    return Pick(position, "page", position, op, "group", "a cat", keys, "left", keys[0], keys[1], rater)


def check(pairs, facts=None, sides=SILENT, agreement=NOBODY, model="demo", share=SHARE, picks=()):
    return check_health(pairs, facts_of(len(pairs)) if facts is None else facts, sides, agreement, model, share, picks)


def find(code: str, *arguments, **fields):
    """The one finding with this code, None without one."""
    found = [finding for finding in check(*arguments, **fields) if finding.code == code]
    assert len(found) <= 1
    return found[0] if found else None


def many(count: int = 1000) -> list[PickedPair]:
    return [picked(number) for number in range(count)]


# ------------------------------------------------------------------------------------------------ in all


def test_healthy_pairs_get_one_good_sentence_and_what_validation_can_resolve():
    findings = check(many())
    assert {finding.code: finding.severity for finding in findings} == {"fine": 0, "validation": 0}
    assert findings[0].sentence == "1,000 pairs of 1,000 prompts: nothing needs mending."


def test_without_pairs_there_is_nothing_to_say():
    assert check([]) == []


def test_the_worst_comes_first_and_each_that_can_be_mended_says_how():
    pairs = [*many(60), picked(60, missing=("lost.png",)), picked(61, confidence=0.5)]
    findings = check(pairs, facts_of(62, i3={"width": 256}), Sides(40, 8, 0))
    severities = [finding.severity for finding in findings]
    assert findings[0].code == "gone" and severities == sorted(severities, reverse=True) and len(set(severities)) >= 3
    assert all(finding.remedy for finding in findings if finding.severity)
    assert "fine" not in {finding.code for finding in findings}


def test_pairs_that_training_leaves_out_are_not_judged():
    same = {"width": 64}
    pairs = [
        picked(0), picked(1), picked(2, state="deleted"), picked(3, missing=("gone.png",)),
        picked(4, state="deleted", missing=("gone.png",)),
    ]  # fmt: skip
    findings = check(pairs, facts_of(5, i4=same, i6=same, i8=same))
    assert "sizes_differ" not in {finding.code for finding in findings}
    assert find("gone", pairs).pairs == (3,)


def test_pairs_of_which_nothing_is_known_and_pairs_all_left_out_make_no_trouble():
    assert {finding.code for finding in check([picked(0)], facts={})} == {"no_validation", "model_unknown"}
    assert [finding.code for finding in check([picked(0, state="deleted")])] == []


# ------------------------------------------------------------------------------------------------ what people said


def test_two_people_who_said_the_opposite_are_a_conflict():
    found = find("conflicts", many(40), picks=[pick(1, 6, 7, "Ada"), pick(2, 7, 6, "Bo"), pick(3, 8, 9), pick(4, 8, 9, "Bo")])
    assert found.sentence == "1 comparison was answered both ways round, 1 of them by different people."
    assert (found.pairs, found.severity) == ((3,), 2)


def test_one_person_who_said_both_is_a_conflict_too_and_much_of_it_is_worse():
    picks = [pick(1, 6, 7), pick(2, 7, 6), pick(3, 8, 9), pick(4, 9, 8, "")]
    found = find("conflicts", many(12), picks=picks)
    assert found.sentence == "2 comparisons were answered both ways round."
    assert (found.pairs, found.severity) == ((3, 4), 3)


def test_conflicts_that_left_no_pair_are_counted():
    found = find("conflicts", many(40), picks=[pick(1, 500, 501), pick(2, 501, 500)])
    assert (found.sentence, found.pairs) == ("1 comparison was answered both ways round.", ())


def test_picking_again_from_the_same_grid_is_a_change_of_mind_and_no_conflict():
    again = [pick(1, 6, 7, op="best_worst", also=(8,)), pick(2, 7, 6, op="best_worst", also=(8,))]
    assert find("conflicts", many(40), picks=again) is None
    by_another = [again[0], pick(2, 7, 6, "Bo", op="best_worst", also=(8,))]
    assert find("conflicts", many(40), picks=by_another).pairs == (3,)


@pytest.mark.parametrize("settled", [{"is_swapped": True, "keys": (key(7), key(6))}, {"state": "deleted"}])
def test_what_was_settled_in_the_review_is_no_conflict(settled):
    pairs = [picked(number, **settled) if number == 3 else picked(number) for number in range(40)]
    assert find("conflicts", pairs, picks=[pick(1, 6, 7), pick(2, 7, 6)]) is None


def test_two_pairs_of_the_same_two_pictures_the_other_way_round_are_one_conflict_by_pixels():
    facts = facts_of(40, i8={"digest": "dog"}, i9={"digest": "cat"}, i6={"digest": "cat"}, i7={"digest": "dog"})
    found = find("conflicts", many(40), facts, picks=[pick(1, 6, 7), pick(2, 8, 9)])
    assert found.sentence == "1 comparison was answered both ways round." and (found.pairs, found.severity) == ((3, 4), 3)
    assert find("conflicts", many(40), facts) == found  # also where no pick is at hand


def test_a_side_that_wins_too_often_is_told_with_numbers():
    found = find("position_bias", many(), sides=Sides(34, 14, 3))
    assert found.sentence.startswith("The left image wins 71% of 48 duels") and found.severity == 2
    assert find("position_bias", many(), sides=Sides(14, 34, 3)).sentence.startswith("The right image wins 71% of 48 duels")


@pytest.mark.parametrize(("left", "right", "is_biased"), [
    (6, 0, True), (5, 0, False),  # 2/64 = 0.031 and 2/32 = 0.0625
    (15, 5, True), (14, 6, False),  # 0.0414 and 0.1153, by any table
    (5_000, 5_201, True), (5_000, 5_190, False),  # 0.0477 and 0.0612
    (300, 0, True), (10, 10, False),
])  # fmt: skip
def test_a_bias_is_told_where_a_two_sided_test_at_five_per_cent_finds_one(left, right, is_biased):
    assert (find("position_bias", many(), sides=Sides(left, right, 0)) is not None) == is_biased


def test_without_bias_twenty_duels_are_a_calm_sentence_and_fewer_none():
    calm = find("no_position_bias", many(), sides=Sides(9, 11, 0))
    assert calm.sentence == "Neither side is favoured: the left image wins 45% of 20 duels." and calm.severity == 0
    assert find("no_position_bias", many(), sides=Sides(9, 10, 30)) is None
    assert find("no_position_bias", many(), sides=Sides(34, 14, 0)) is None


def test_many_ties_are_told():
    assert find("ties", many(), sides=Sides(15, 15, 21)).sentence.startswith("41% of 51 duels are ties")
    assert find("ties", many(), sides=Sides(15, 15, 20)) is None  # 40%
    assert find("ties", many(), sides=Sides(3, 3, 13)) is None  # too few


@pytest.mark.parametrize(("agreement", "words", "severity"), [
    (Agreement(20, 19, 0.9), "19 of 20 pairs (Cohen's kappa 0.90, almost perfect)", 0),
    (Agreement(20, 16, 0.6), "16 of 20 pairs (Cohen's kappa 0.60, moderate)", 0),
    (Agreement(20, 13, 0.3), "13 of 20 pairs (Cohen's kappa 0.30, fair)", 1),
    (Agreement(20, 8, -0.2), "8 of 20 pairs (Cohen's kappa -0.20, no better than chance)", 2),
    (Agreement(20, 10, 0.45), "10 of 20 pairs (Cohen's kappa 0.45, moderate)", 2),
    (Agreement(9, 4, 0.1), "4 of 9 pairs (Cohen's kappa 0.10, slight)", 0),  # too few to blame anybody
    (Agreement(1, 1, None), "1 of 1 pair (too few, or too much the same, for Cohen's kappa)", 0),
])  # fmt: skip
def test_agreement_is_told_in_words(agreement, words, severity):
    found = find("agreement", many(), agreement=agreement)
    assert (found.sentence, found.severity) == (f"Second opinions agree on {words}.", severity)


def test_the_smoothing_that_an_agreement_speaks_for_is_worked_out():
    # Two who each err with 0.1 agree on 0.9 * 0.9 + 0.1 * 0.1 = 82 of 100.
    assert "label smoothing of 0.10" in find("agreement", many(), agreement=Agreement(100, 82, 0.64)).remedy
    assert find("agreement", many(), agreement=Agreement(100, 95, 0.9)).remedy == ""


def test_unsure_pairs_are_counted_with_what_they_come_to():
    pairs = [picked(number, confidence=0.7 if number < 31 else 0.95) for number in range(120)]
    found = find("unsure", pairs)
    # 31 * 0.3 + 89 * 0.05 = 13.75
    assert found.sentence.startswith("31 of 120 pairs (26%) are less than 80% sure.") and "about 14 are" in found.sentence
    assert (found.pairs, found.severity) == (tuple(range(31)), 1)
    assert find("unsure", [picked(number, confidence=0.7) for number in range(9)]).severity == 2
    assert find("unsure", [picked(0, confidence=0.8)]) is None


# ------------------------------------------------------------------------------------------------ what the images show


def test_a_pair_with_one_picture_on_both_sides_is_wrong():
    found = find("same_picture", many(40), facts_of(40, i7={"digest": image(6).digest}))
    assert found.sentence == "1 of 40 pairs (2%) has the very same picture on both sides." and found.pairs == (3,)
    assert found.severity == 3
    codes = {finding.code for finding in check(many(40), facts_of(40, i7={"digest": image(6).digest}))}
    assert not codes & {"alike", "conflicts", "chosen_and_rejected"}


def test_a_picture_that_is_chosen_in_one_pair_and_rejected_in_another_is_named_with_both():
    found = find("chosen_and_rejected", many(40), facts_of(40, i7={"digest": "cat"}, i8={"digest": "cat"}))
    assert found.sentence == "1 picture is chosen in one pair and rejected in another, 2 pairs in all."
    assert found.pairs == (3, 4)
    assert find("repeated", many(40), facts_of(40, i7={"digest": "cat"}, i8={"digest": "cat"})) is None


def test_a_picture_that_is_often_on_the_same_side_is_counted():
    cat = {"digest": "cat"}
    found = find("repeated", many(40), facts_of(40, i7=cat, i9=cat, i11=cat))
    assert found.sentence.startswith("1 picture is on the same side of several pairs, 3 pairs in all") and found.pairs == (
        3,
        4,
        5,
    )


def test_images_whose_pixels_nobody_saw_are_known_by_content():
    unseen = {"digest": "", "dhash": None}
    facts = facts_of(40, **{f"i{number}": unseen for number in range(80)})
    assert not {finding.code for finding in check(many(40), facts)} & {"same_picture", "alike", "unlike", "repeated"}
    pairs = [*many(40), picked(40, keys=(key(6), key(81)))]
    assert find("repeated", pairs, facts).pairs == (3, 40)


def test_different_prompts_in_a_pair_are_told_but_not_other_spellings_or_missing_ones():
    odd = {"i1": {"prompt": "a dog"}, "i3": {"prompt": " Prompt  1 <lora:x:1>,"}, "i5": {"prompt": ""}}
    found = find("prompts_differ", many(40), facts_of(40, **odd))
    assert found.sentence == "1 of 40 pairs (2%) compares images that were made from different prompts."
    assert (found.pairs, found.severity) == ((0,), 2)
    assert find("prompts_differ", many(4), facts_of(4, **odd)).severity == 3


def test_different_sizes_are_told_and_shapes_apart():
    found = find("sizes_differ", many(40), facts_of(40, i1={"width": 1024, "height": 1024}, i5={"width": 768}, i6={"width": 0}))
    assert found.sentence == "2 of 40 pairs (5%) compare images of different sizes, 1 of them of different shapes."
    assert (found.pairs, found.severity) == ((0, 2), 2)
    nearly = facts_of(40, i1={"width": 1024, "height": 1016})  # as an upscaler rounds
    assert (found := find("sizes_differ", many(40), nearly)).severity == 1 and "shapes" not in found.sentence


def with_bits(bits: int, **fields) -> dict:
    return facts_of(40, i6={"dhash": 0}, i7={"dhash": (1 << bits) - 1, **fields})


@pytest.mark.parametrize(("bits", "code"), [(0, "alike"), (4, "alike"), (5, None), (27, None), (28, "unlike"), (64, "unlike")])
def test_pairs_are_alike_up_to_4_bits_and_unlike_from_28(bits, code):
    found = {finding.code: finding.pairs for finding in check(many(40), with_bits(bits)) if finding.code in ("alike", "unlike")}
    known = {finding.code: finding.pairs for finding in check(many(40)) if finding.code in ("alike", "unlike")}
    assert known == {} and found == ({code: (3,)} if code else {})


def test_alike_are_only_images_of_one_size_and_different_pictures():
    assert find("alike", many(40), with_bits(2, width=256)) is None
    assert find("alike", many(40), with_bits(0, digest=image(6).digest)) is None
    assert find("alike", many(4), facts_of(4, i6={"dhash": 0}, i7={"dhash": 1})).severity == 2  # a quarter


def test_of_unlike_images_it_is_said_that_seeds_look_like_that_and_how_many_nobody_looked_at():
    facts = with_bits(40) | {key(0): image(0, dhash=None)}
    found = find("unlike", many(40), facts)
    assert found.sentence == (
        "1 of 39 pairs (3%) have nothing in common in their layout. Images of different seeds look like that, so it is no fault. "
        "1 pair was not looked at yet."
    )
    assert found.severity == 1


@pytest.mark.parametrize(("trained", "written"), [
    ("stabilityai/Paint_XL", "paint-xl.safetensors"), ("models/paint xl.ckpt", "C:\\models\\paint_xl [0a1b2c3d]"),
    ("demo", "demo"), ("~/models/paint-v1.5/", "paint-v1.5"),
])  # fmt: skip
def test_a_model_is_known_by_the_stem_of_its_file_name(trained, written):
    facts = facts_of(20, **{f"i{number}": {"model": written} for number in range(40)})
    assert find("other_model", many(20), facts, model=trained) is None
    assert find("model_unknown", many(20), facts, model=trained) is None


def test_images_of_other_models_are_counted_by_model_and_those_that_do_not_say():
    other = {f"i{number}": {"model": "juggernautXL_v9.safetensors"} for number in range(6)}
    found = find("other_model", many(20), facts_of(20, **other, i8={"model": "flux"}, i9={"model": ""}))
    assert found.sentence == (
        "7 of 40 images were made by another model than demo: 6 by juggernautxl-v9, 1 by flux. 1 does not say."
    )
    assert (found.pairs, found.severity) == ((0, 1, 2, 4), 2)
    flux = {f"i{number}": {"model": "flux"} for number in range(4)}
    assert find("other_model", many(20), facts_of(20, **flux)).severity == 1  # a tenth


def test_images_that_do_not_say_their_model_are_told_where_they_are_most():
    silent = {f"i{number}": {"model": ""} for number in range(21)}
    assert find("model_unknown", many(20), facts_of(20, **silent)).sentence.startswith("21 of 40 images do not say")
    del silent["i20"]
    assert find("model_unknown", many(20), facts_of(20, **silent)) is None


# ------------------------------------------------------------------------------------------------ what can be learned


def test_pairs_that_crowd_on_few_prompts_are_told():
    pairs = [picked(number, "A Cat" if number % 2 else "a  cat,") for number in range(14)]
    pairs += [picked(number, f"prompt {number}") for number in range(14, 20)]
    found = find("skewed", pairs)
    # Shares 0.7 and six of 0.05: 1 / (0.49 + 6 * 0.0025) = 1.98
    assert found.sentence == "The pairs are of 7 prompts but spread like 2.0 equal ones: the largest has 14 of 20 pairs (70%)."
    assert (found.pairs, found.severity) == (tuple(range(14)), 2)
    assert find("skewed", pairs[-6:]) is None and find("skewed", [picked(0, "a cat"), picked(1, "a cat"), picked(2)]) is None


def test_pairs_that_crowd_on_several_prompts_are_told_too():
    pairs = [picked(number, f"prompt {number % 4}") for number in range(40)] + many(52)[40:]
    # Four shares of 10/52 and twelve of 1/52: 52^2 / 412 = 6.56, less than half of 16
    assert find("skewed", pairs).sentence.startswith("The pairs are of 16 prompts but spread like 6.6 equal ones")
    assert find("skewed", [picked(number, f"prompt {number % 4}") for number in range(40)]) is None


def test_pairs_of_one_prompt_are_told_once():
    pairs = [picked(number, "a cat") for number in range(9)]
    assert find("one_prompt", pairs).sentence == "All 9 pairs are of one prompt."
    assert "there is only one prompt" in find("no_validation", pairs).sentence


def test_what_validation_can_resolve_is_told_in_steps_and_chance():
    pairs = many(70)
    held_out = held_out_prompts([entry.pair.prompt for entry in pairs], SHARE)
    assert len(held_out) == 6  # of these seventy
    found = find("validation", pairs)
    # Wilson at one half: 1.96 / (2 * sqrt(6 + 1.96^2)) = 0.312
    assert found.sentence == (
        "With 6 validation pairs of 6 prompts accuracy moves in steps of 17%, and chance alone moves it by up to 31% either way "
        "(95% interval)."
    )
    assert {pairs[place].pair.prompt for place in found.pairs} == held_out and found.severity == 2
    assert "93 of them" in found.remedy  # 1.96 / (2 * sqrt(93 + 3.84)) = 0.0996
    assert "93 of them" in find("validation", many(200)).remedy and find("validation", many(1000)).remedy == ""


def test_no_validation_at_all_is_told_with_its_reason():
    assert "their share is 0" in find("no_validation", many(20), share=0.0).sentence
    assert find("validation", many(20), share=0.0) is None


def test_pairs_that_wait_for_a_reject_are_counted_and_not_judged():
    pairs = [picked(0), picked(1, keys=(key(2), ""), state="needs_reject")]
    assert find("needs_reject", pairs).pairs == (1,)


# ------------------------------------------------------------------------------------------------ at size, and for real


def test_twenty_thousand_pairs_take_seconds_at_most():
    rng = random.Random(0)
    pairs = [picked(number, f"prompt {number % 2000}, with <lora:x:{number % 3}> words") for number in range(20_000)]
    facts = {key(number): image(number, dhash=rng.getrandbits(64)) for number in range(40_000)}
    picks = [pick(number, 2 * number, 2 * number + 1) for number in range(20_000)]
    started = time.perf_counter()
    check(pairs, facts, Sides(9_000, 9_100, 1_900), Agreement(2000, 1700, 0.7), picks=picks)
    assert time.perf_counter() - started < 50


def test_a_real_project_is_judged_from_its_stores(tmp_path):
    project = open_project(tmp_path / "project")
    paint_folder(tmp_path / "images", prompts=4, per_prompt=2)
    project.library.scan(tmp_path / "images")
    for number, group in enumerate(project.library.groups(tmp_path / "images")):
        keys = [image.key for image in group.images]
        operation = {"client": "page-1", "number": number, "op": "duel", "group": group.key, "images": keys, "result": "left"}
        assert project.picks.apply([operation]).new == 1
    pairs = project.picks.picked_pairs()
    facts = project.library.image_facts({key for entry in pairs for key in (entry.chosen, entry.rejected)})
    findings = check_health(pairs, facts, project.picks.sides(), project.picks.agreement(), "demo", SHARE, project.picks.live())
    assert len(pairs) == 4 and len(facts) == 8
    assert {finding.code for finding in findings} == {"validation", "model_unknown"} | (
        {"unsure"} if pairs[0].pair.confidence < 0.8 else set()
    )
