"""How families read prompts as people write them: the same for training and for sampling, and no further than they say."""

import pytest
import torch

from dpo.cache import cut_note, encode_items
from dpo.events import Note
from dpo.families import load_family
from dpo.families.clip_windows import split_windows
from dpo.sampling import Sampler, SampleSettings
from tests.families import families
from tests.families.checks import make_pairs, watched_calls
from tests.tiny import build_pipeline, build_tokenizer

FAMILIES = {tiny.name: tiny for tiny in families()}
WITH_CLIP_ALONE = [name for name in FAMILIES if name.startswith("sd_1") or name.startswith("sd_2") or name.startswith("sdxl")]
OTHERS = [name for name in FAMILIES if name not in WITH_CLIP_ALONE]


def build(name):
    return load_family(FAMILIES[name].build())


def rows(told):
    """Tensors without their names' order, each flattened to numbers; lists as their only element."""
    return {name: value[0] if isinstance(value, list) else value for name, value in told.items() if value is not None}


def assert_equal(first, second):
    first, second = rows(first), rows(second)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=0)


def letters(windows, tokenizer):
    return [tokenizer.decode([token for token, _ in window]).replace(" ", "") for window in windows]


# ------------------------------------------------------------------------------------------------ all families


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_no_word_changes_nothing_in_training_nor_in_sampling(name):
    family = build(name)
    written, plain = "a <lora:x:1>[cat|dog]", "a cat"
    assert_equal(family.encode_prompts([written]), family.encode_prompts([plain]))
    assert_equal(family.prompt_arguments(written, "<lyco:y:1>x"), family.prompt_arguments(plain, "x"))


@pytest.mark.parametrize("name", FAMILIES)
def test_training_and_sampling_read_a_prompt_the_same_way(name):
    """In `prompt_arguments` by the same names, beside those of the negative prompt."""
    family = build(name)
    told = rows(family.encode_prompts(["a (cat:1.4) BREAK b"]))
    asked = rows(family.prompt_arguments("a (cat:1.4) BREAK b", ""))
    assert told.keys() <= asked.keys()
    for part, tensor in told.items():
        torch.testing.assert_close(tensor.reshape(asked[part].shape), asked[part], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_weights_are_left_out_where_nobody_was_trained_with_them(name):
    family = build(name)
    assert_equal(family.encode_prompts(["a (cat:1.4)"]), family.encode_prompts(["a cat"]))
    assert_equal(family.prompt_arguments("a cat", "a (cat:1.4)"), family.prompt_arguments("a cat", "a cat"))


@pytest.mark.parametrize("name", OTHERS)
def test_a_family_says_exactly_how_many_tokens_it_does_not_read(name):
    """The last letter of the longest prompt that is read whole matters; one letter more, and the last one does not."""
    family = build(name)

    def told(length, last):
        return rows(family.encode_prompts(["x" * (length - 1) + last]))

    length = next(length for length in range(2, 2000) if family.cut_tokens("x" * length))
    assert family.cut_tokens("x" * length) == 1 and family.cut_tokens("x" * (length + 7)) == 8
    for number, is_read in ((length - 1, True), (length, False)):
        pairs = zip(told(number, "x").values(), told(number, "y").values(), strict=True)
        assert any(not torch.equal(first, second) for first, second in pairs) == is_read, number


def test_a_picture_is_sampled_from_the_prompt_as_training_read_it(tmp_path):
    """Compare, candidates and the command line all ask a Sampler."""
    sampler = Sampler(build_pipeline(), "demo")
    calls = watched_calls(sampler.family)
    prompt = "<lora:x:1>a (red:1.5) cat, in a garden, at night"
    sampler.sample([(prompt, 1)], SampleSettings(sampling_steps=1, guidance_scale=1.0))
    (_, told, _), *_ = calls
    pair = make_pairs(FAMILIES["sd_1.x"], tmp_path)[0]
    *_, data = encode_items([type(pair)(prompt, *pair.images)], sampler.family, 16, tmp_path / "cache")
    (batch,) = data.batches([0], [0], [0])
    assert batch.conditioning["prompt_embeds"].shape[1] == 3 * 16
    torch.testing.assert_close(batch.conditioning["prompt_embeds"][:1], told["encoder_hidden_states"], rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------ CLIP alone


@pytest.mark.parametrize("name", WITH_CLIP_ALONE)
def test_a_plain_prompt_of_one_window_is_encoded_as_the_pipeline_does_it(name):
    family = build(name)
    for prompt in ("a red cat", "", "14 letters now", " A,  b "):
        embeds, _, *pooled = family.pipeline.encode_prompt(
            prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        expected = {"prompt_embeds": embeds} | ({"pooled_prompt_embeds": pooled[0]} if pooled else {})
        assert_equal(family.encode_prompts([prompt]), expected)


@pytest.mark.parametrize("name", WITH_CLIP_ALONE)
def test_what_does_not_fit_goes_on_in_a_window_of_its_own_and_the_first_is_pooled(name):
    family = build(name)
    first, second = (family.encode_prompts([text]) for text in ("a b c d e f g h i j k l m n", "o p q"))
    both = family.encode_prompts(["a b c d e f g h i j k l m n o p q"])
    torch.testing.assert_close(both["prompt_embeds"][:, :16], first["prompt_embeds"], rtol=0, atol=0)
    if "pooled_prompt_embeds" in both:
        torch.testing.assert_close(both["pooled_prompt_embeds"], first["pooled_prompt_embeds"], rtol=0, atol=0)
    parts = family.encode_prompts(["abc BREAK o p q"])["prompt_embeds"]
    torch.testing.assert_close(parts[:, 16:], second["prompt_embeds"], rtol=0, atol=0)
    assert family.cut_tokens("abc" * 999) == 0


@pytest.mark.parametrize("name", WITH_CLIP_ALONE)
def test_the_shorter_of_prompt_and_negative_prompt_gets_empty_windows(name):
    family = build(name)
    asked = family.prompt_arguments("a", "b" * 30)
    assert asked["prompt_embeds"].shape == asked["negative_prompt_embeds"].shape and asked["prompt_embeds"].shape[1] == 3 * 16
    empty = family.encode_prompts([""])["prompt_embeds"]
    torch.testing.assert_close(asked["prompt_embeds"][:, 16:], torch.cat([empty, empty], 1), rtol=0, atol=0)


@pytest.mark.parametrize("name", WITH_CLIP_ALONE)
def test_a_weight_multiplies_a_tokens_embedding_and_the_mean_is_restored(name):
    """Of "a b (c:1.5)" the rows are begin, a, b, c, end, ..: row 3 is 1.5 times as long, and all are scaled by one number. Of two
    CLIPs, each has a mean of its own."""
    family = build(name)
    plain, weighed = (family.encode_prompts([text]) for text in ("a b c", "a b (c:1.5)"))
    widths = [module.config.hidden_size for part, module in family.pipeline.components.items() if part.startswith("text_enc")]
    for before, after in zip(
        plain["prompt_embeds"][0].split(widths, -1), weighed["prompt_embeds"][0].split(widths, -1), strict=True
    ):
        by_hand = before.clone()
        by_hand[3] *= 1.5
        torch.testing.assert_close(after, by_hand * (before.mean() / by_hand.mean()))
        assert (after[3] - before[3]).abs().max() > 0.1
    for part in plain.keys() - {"prompt_embeds"}:
        assert torch.equal(plain[part], weighed[part])


def test_an_encoder_that_wants_a_mask_is_given_one_as_the_pipeline_does():
    pipeline = build_pipeline()
    family = load_family(pipeline)
    before = family.encode_prompts(["a cat"])
    pipeline.text_encoder.config.use_attention_mask = True
    after = family.encode_prompts(["a cat"])
    expected, _ = pipeline.encode_prompt(["a cat"], "cpu", 1, False)
    assert_equal(after, {"prompt_embeds": expected})
    assert not torch.equal(before["prompt_embeds"], after["prompt_embeds"])


@pytest.mark.parametrize(
    "prompt, windows",
    [
        ("abcdefghijklmn", ["abcdefghijklmn"]),
        ("abcdefghijklmno", ["abcdefghijklmn", "o"]),
        ("abcd, efghijklmno", ["abcd,", "efghijklmno"]),  # behind the last comma
        ("ab, cd, efghijklmno", ["ab,cd,", "efghijklmno"]),
        ("abc, defghijklm, o", ["abc,defghijklm", ",o"]),  # as A1111, where the token that does not fit is a comma itself
        ("abcdefghijklm, o", ["abcdefghijklm,", "o"]),
        ("a BREAK b BREAK", ["a", "b"]),
        ("BREAK a", ["", "a"]),
        ("", [""]),
    ],
)
def test_windows_break_behind_commas_and_at_break(prompt, windows):
    tokenizer = build_tokenizer()
    assert letters(split_windows(prompt, tokenizer), tokenizer) == windows


def test_a_comma_further_back_than_20_tokens_is_no_place_to_break():
    """Of 30 letters in a window, the comma being the 10th token (20 follow it) or the 11th (19 do)."""
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 32
    for before, ends in (("a" * 9, 30), ("a" * 10, 11)):
        first, _ = split_windows(f"{before},{'b' * 30}", tokenizer)
        assert len(first) == ends


# ------------------------------------------------------------------------------------------------ what a run says of it


def test_a_run_says_once_how_many_prompts_are_longer_than_what_is_read():
    family = build("sd_1.x")
    assert cut_note(["a", "b"], family) is None
    family.reach = ("tokenizer", 7)  # five and the marks of begin and end
    note = cut_note(["abcde", "abcdef", "abcdefgh", "abcdefgh"], family)
    assert note == Note(
        0, "2 of 3 prompts are longer than this model reads: up to 3 tokens at the end are not seen.", tone="warning"
    )
