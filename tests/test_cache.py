import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from dpo.buckets import choose_bucket
from dpo.cache import DataError, TrainingData, encode_items, fit_image
from dpo.events import Note
from dpo.families import load_family
from dpo.losses import ranking_weights
from dpo.pairs import Like, Pair, Ranking
from tests.metadata.files import chunk
from tests.tiny import build_pipeline, make_pairs


def encode(items, cache, family=None, resolution=16):
    *notes, data = encode_items(items, family or load_family(build_pipeline()), resolution, cache)
    assert isinstance(data, TrainingData) and all(isinstance(note, Note) for note in notes)
    return data


def batches(data, indices):
    return data.batches(indices, list(range(len(indices))), [0] * len(indices))


def cached(cache):
    return {path.name for path in cache.glob("*.safetensors")}


@pytest.fixture
def opened(monkeypatch):
    """Names of the cached files that were read, in order."""
    names = []

    def read_bytes(path):
        if path.suffix == ".safetensors":
            names.append(path.name)
        with open(path, "rb") as file:
            return file.read()

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return names


# ------------------------------------------------------------------------------------------------ rows and what is said of them


def test_a_batch_holds_item_by_item_the_chosen_image_before_the_rejected_one(tmp_path):
    family = load_family(build_pipeline())
    pairs = make_pairs(tmp_path / "images")
    (batch,) = encode(pairs, tmp_path / "cache", family).batches([3, 0], [7, 8], [2, 0])
    expected = [pairs[3].chosen, pairs[3].rejected, pairs[0].chosen, pairs[0].rejected]
    pixels = torch.stack([fit_image(path, (16, 16)) for path in expected])
    torch.testing.assert_close(batch.latents, family.encode_images(pixels), rtol=1e-4, atol=1e-5)
    prompts = family.encode_prompts([pairs[index].prompt for index in (3, 3, 0, 0)])["prompt_embeds"]
    torch.testing.assert_close(batch.conditioning["prompt_embeds"], prompts)
    assert batch.comparisons.chosen.tolist() == [0, 2] and batch.comparisons.rejected.tolist() == [1, 3]
    assert batch.comparisons.weight.tolist() == [1.0, 1.0] and batch.labels.rows.tolist() == []
    assert batch.groups.tolist() == [0, 0, 1, 1]
    assert (batch.numbers, batch.visits) == ([7, 8], [2, 0])


def test_a_ranking_is_all_its_comparisons_and_weighs_as_much_as_a_pair(tmp_path):
    first, second, third = make_pairs(tmp_path / "images")[:3]
    ranking = Ranking("ranked", (first.chosen, second.chosen, third.rejected), confidence=0.75)
    (batch,) = batches(encode([first, ranking], tmp_path / "cache"), [0, 1])
    compared = list(zip(batch.comparisons.chosen.tolist(), batch.comparisons.rejected.tolist(), strict=True))
    assert compared == [(0, 1), (2, 3), (2, 4), (3, 4)]
    torch.testing.assert_close(batch.comparisons.weight, torch.cat([torch.ones(1), ranking_weights(3)]))
    assert batch.comparisons.smoothing.tolist() == [0.0, 0.25, 0.25, 0.25]
    assert batch.groups.tolist() == [0, 0, 1, 1, 1] and len(batch.latents) == 5


def test_a_like_is_one_row_with_a_label_and_no_comparison(tmp_path):
    pair = make_pairs(tmp_path / "images")[0]
    likes = [Like("a", pair.rejected, liked=False), Like("b", pair.chosen, liked=True)]
    (batch,) = batches(encode([likes[0], pair, likes[1]], tmp_path / "cache"), [0, 1, 2])
    assert (batch.labels.rows.tolist(), batch.labels.liked.tolist(), batch.labels.weight.tolist()) == (
        [0, 3],
        [False, True],
        [1, 1],
    )
    assert batch.labels.liked.dtype == torch.bool
    assert (batch.comparisons.chosen.tolist(), batch.comparisons.rejected.tolist()) == ([1], [2])
    assert batch.groups.tolist() == [0, 1, 1, 2]
    torch.testing.assert_close(batch.latents[0], batch.latents[2], rtol=0, atol=0)


def test_images_of_other_shapes_make_batches_of_their_own(tmp_path):
    pairs = make_pairs(tmp_path / "images")
    for name in ("wide-a", "wide-b"):
        Image.new("RGB", (48, 16), "red").save(tmp_path / f"{name}.png")
    pairs.append(Pair("wide", str(tmp_path / "wide-a.png"), str(tmp_path / "wide-b.png")))
    found = batches(encode(pairs, tmp_path / "cache"), [0, 8, 1])
    assert [batch.numbers for batch in found] == [[0, 2], [1]]
    assert found[1].latents.shape == (2, 4, 4, 14) and found[1].groups.tolist() == [0, 0]


def test_the_partner_of_a_chosen_image_is_fitted_to_the_same_size(tmp_path):
    for name, size in (("a", (48, 16)), ("b", (42, 16))):
        Image.new("RGB", size, "red").save(tmp_path / f"{name}.png")
    pair = Pair("wide", str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    family = load_family(build_pipeline())
    assert choose_bucket(42, 16, 16, family.pixel_multiple) != choose_bucket(48, 16, 16, family.pixel_multiple)
    (batch,) = batches(encode([pair], tmp_path / "cache", family), [0])
    assert batch.latents.shape == (2, 4, 4, 14)


# ------------------------------------------------------------------------------------------------ keys


def test_the_key_of_an_item_is_the_same_in_every_run_and_changes_with_its_tensors(tmp_path):
    pairs = make_pairs(tmp_path / "images")

    def keys(items, **settings):
        data = encode(items, tmp_path / "cache", **settings)
        return [batches(data, [index])[0].keys[0] for index in range(len(items))]

    found = keys(pairs)
    assert len(set(found)) == len(pairs)
    assert keys(pairs) == found
    assert keys(pairs[3:5]) == found[3:5]
    assert keys(pairs, resolution=32) != found
    swapped = [Pair(pair.prompt, pair.rejected, pair.chosen) for pair in pairs]
    reworded = [Pair("another", pair.chosen, pair.rejected) for pair in pairs]
    assert len({*keys(swapped), *keys(reworded), *keys(pairs, resolution=32), *found}) == 4 * len(pairs)


# ------------------------------------------------------------------------------------------------ encoded once, never stale


def test_a_second_run_asks_for_no_encoder_and_reads_no_image(tmp_path, monkeypatch):
    pairs = make_pairs(tmp_path / "images")
    for pair in pairs:
        for path in pair.images:
            os.utime(path, (1, 1))
    monkeypatch.setattr("dpo.contents.SETTLED", -1.0)
    expected = batches(encode(pairs, tmp_path / "cache"), [0, 1])[0].latents
    assert len(cached(tmp_path / "cache")) == 16 + 4  # images, prompts

    family = load_family(build_pipeline())
    family.encoders = family.encode_images = family.encode_prompts = None  # calling one would fail
    read = []
    monkeypatch.setattr("dpo.contents.read_digest", read.append)
    torch.testing.assert_close(batches(encode(pairs, tmp_path / "cache", family), [0, 1])[0].latents, expected, rtol=0, atol=0)
    assert read == []


def test_encoders_leave_the_device_when_the_cache_is_warm(tmp_path):
    family = load_family(build_pipeline())
    asked = []
    within = family.encoders

    @contextmanager
    def encoders():
        asked.append("in")
        with within():
            yield
        asked.append("out")

    family.encoders = encoders
    encode(make_pairs(tmp_path / "images"), tmp_path / "cache", family)
    assert asked == ["in", "out"]  # once for all that was missing


@torch.no_grad()
def other_vae(pipeline):
    pipeline.vae.encoder.conv_in.weight += 1


def other_scaling(pipeline):
    pipeline.vae.register_to_config(scaling_factor=0.5)


def half_precision(pipeline):
    pipeline.vae.to(torch.bfloat16)


def tiled(pipeline):
    pipeline.vae.enable_tiling()


@torch.no_grad()
def other_text_encoder(pipeline):
    pipeline.text_encoder.get_input_embeddings().weight[-3] += 1  # as if one word had been learned


@pytest.mark.parametrize(
    "change, again",
    [(other_vae, 16), (other_scaling, 16), (half_precision, 16), (tiled, 16), (other_text_encoder, 4), (lambda _: None, 0)],
)
def test_what_another_encoder_made_is_not_used(tmp_path, change, again):
    pairs = make_pairs(tmp_path / "images")
    encode(pairs, tmp_path / "cache")
    pipeline = build_pipeline()
    change(pipeline)
    encode(pairs, tmp_path / "cache", load_family(pipeline))
    assert len(cached(tmp_path / "cache")) == 20 + again


def test_a_changed_image_is_encoded_again_and_so_is_another_resolution(tmp_path):
    pairs = make_pairs(tmp_path / "images")
    encode(pairs, tmp_path / "cache")
    Image.new("RGB", (16, 16), "blue").save(pairs[0].chosen)
    encode(pairs, tmp_path / "cache")
    assert len(cached(tmp_path / "cache")) == 21
    encode(pairs, tmp_path / "cache", resolution=32)
    assert len(cached(tmp_path / "cache")) == 21 + 16


def test_an_image_that_changes_while_it_is_read_leaves_nothing_under_its_old_name(tmp_path, monkeypatch):
    pairs = make_pairs(tmp_path / "images", prompts=1, per_prompt=1)

    def write_and_open(path, *_):
        Image.new("RGB", (16, 16), "blue").save(path)
        return Image.new("RGB", (16, 16), "blue")

    monkeypatch.setattr("dpo.cache.open_pixels", write_and_open)
    with pytest.raises(DataError, match=r"00-chosen.png changed while it was being read\. Start again once nothing writes"):
        encode(pairs, tmp_path / "cache")
    assert cached(tmp_path / "cache") == set()


def test_what_an_image_is_encoded_to_does_not_depend_on_its_neighbours(tmp_path):
    pairs = make_pairs(tmp_path / "images")
    (together,) = batches(encode(pairs, tmp_path / "one"), [5])
    (alone,) = batches(encode(pairs[5:6], tmp_path / "other"), [0])
    assert alone.latents.equal(together.latents) and alone.keys == together.keys
    assert alone.conditioning["prompt_embeds"].equal(together.conditioning["prompt_embeds"])


# ------------------------------------------------------------------------------------------------ safe to delete


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"half a f")])
def test_a_cached_file_that_is_gone_or_torn_when_training_wants_it_is_encoded_again(tmp_path, damage, opened):
    pairs = make_pairs(tmp_path / "images")
    encode(pairs, tmp_path / "cache")
    (expected,) = batches(encode(pairs, tmp_path / "cache"), [0, 1])
    data = encode(pairs, tmp_path / "cache")
    names = cached(tmp_path / "cache")
    for name in names:
        damage(tmp_path / "cache" / name)
    (batch,) = batches(data, [0, 1])
    assert batch.latents.equal(expected.latents) and batch.keys == expected.keys
    assert cached(tmp_path / "cache") <= names

    family = load_family(build_pipeline())
    data = encode(pairs, tmp_path / "cache", family)
    damage(tmp_path / "cache" / opened[0])
    family.release_encoders()
    with pytest.raises(DataError, match=r"safetensors is gone or damaged\. Start the run again: it encodes what is missing"):
        batches(data, [0, 1])
    family = load_family(build_pipeline())
    data = encode(pairs, tmp_path / "cache", family)  # as the sentence says
    family.release_encoders()
    (batch,) = batches(data, [0, 1])
    assert batch.keys == expected.keys


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_files_left_empty_or_short_by_a_crash_are_encoded_before_training_begins(tmp_path, share):
    pairs = make_pairs(tmp_path / "images")
    encode(pairs, tmp_path / "cache")
    for name in cached(tmp_path / "cache"):
        data = (tmp_path / "cache" / name).read_bytes()
        (tmp_path / "cache" / name).write_bytes(data[: int(len(data) * share)])
    family = load_family(build_pipeline())
    data = encode(pairs, tmp_path / "cache", family)
    family.release_encoders()
    batches(data, list(range(8)))


def test_a_whole_cache_deleted_during_a_run_is_not_missed_once_an_epoch_was_seen(tmp_path):
    pairs = make_pairs(tmp_path / "images")
    family = load_family(build_pipeline())
    data = encode(pairs, tmp_path / "cache", family)
    expected = batches(data, [0, 1, 2, 3, 4, 5, 6, 7])
    family.release_encoders()
    shutil.rmtree(tmp_path / "cache")
    assert batches(data, [0, 1, 2, 3, 4, 5, 6, 7])[0].latents.equal(expected[0].latents)


# ------------------------------------------------------------------------------------------------ what a step costs


def test_a_step_opens_no_file_once_its_tensors_are_in_memory(tmp_path, opened):
    pairs = make_pairs(tmp_path / "images")
    encode(pairs, tmp_path / "cache")
    opened.clear()
    data = encode(pairs, tmp_path / "cache")
    assert opened == []
    batches(data, [0, 2])
    assert len(opened) == 2 * 2 + 2  # images, prompts
    batches(data, [0, 2])
    assert len(opened) == 6
    batches(data, [1])
    assert len(opened) == 8  # its prompt is that of 0


def test_memory_is_bounded_and_what_does_not_fit_is_read_for_every_step(tmp_path, opened, monkeypatch):
    bound = 3 * 4 * 8 * 8 * 4  # bytes: the first pair's two images and the prompt, whose 16 x 16 floats are as many
    monkeypatch.setattr("dpo.cache.HOT_BYTES", bound)
    pairs = make_pairs(tmp_path / "images", prompts=1, per_prompt=3)
    data = encode(pairs, tmp_path / "cache")
    for _ in range(2):
        opened.clear()
        for index in range(3):
            batches(data, [index])
        assert len(opened) == 4  # the images of the other two
    hot = [tensor for found in data._tensors._hot.values() for tensor in found.tensors.values()]
    assert sum(tensor.nbytes for tensor in hot) == bound


# ------------------------------------------------------------------------------------------------ images


@pytest.mark.parametrize(
    "size, bucket",
    [
        ((1024, 1024), (512, 512)),
        ((832, 1216), (448, 640)),
        ((1216, 832), (640, 448)),
        ((64, 64), (512, 512)),
        ((9000, 100), (4864, 64)),
    ],
)
def test_buckets_keep_the_aspect_and_about_the_area(size, bucket):
    assert choose_bucket(*size, 512, 64) == bucket


def test_an_image_is_scaled_to_cover_and_cropped_in_the_middle(tmp_path):
    """A wide picture, red | green | blue thirds: the middle square of it is green."""
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, :20, 0] = pixels[:, 20:40, 1] = pixels[:, 40:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    fitted = fit_image(str(tmp_path / "wide.png"), (20, 20))
    assert fitted.shape == (3, 20, 20)
    assert fitted.mean((1, 2)).tolist() == [-1.0, 1.0, -1.0]


def test_an_image_that_is_gone_is_named(tmp_path):
    pair = make_pairs(tmp_path / "images")[0]
    Path(pair.rejected).unlink()
    with pytest.raises(DataError, match=rf"{Path(pair.rejected).name} cannot be opened: No such file or directory\. Delete"):
        encode([pair], tmp_path / "cache")
    with pytest.raises(DataError, match=r"gone.png cannot be opened.*Delete the pairs that use it, or bring the file back"):
        encode([Pair("a", str(tmp_path / "gone.png"), str(tmp_path / "gone.png"))], tmp_path / "cache")


def test_an_image_whose_checksum_pillow_refuses_is_learned_from_like_its_mended_twin(tmp_path):
    pairs = make_pairs(tmp_path / "images")
    pixels = fit_image(pairs[0].chosen, (16, 16))
    path = Path(pairs[0].chosen)
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk(b"tEXt", b"workflow\0{}", crc=1) + data[33:])
    with pytest.raises(UnidentifiedImageError):
        Image.open(path)
    torch.testing.assert_close(fit_image(str(path), (16, 16)), pixels, rtol=0, atol=0)
    encode(pairs, tmp_path / "cache")


def test_an_image_cut_short_is_named_before_anything_is_learned_from_it(tmp_path):
    pairs = make_pairs(tmp_path / "images")
    path = Path(pairs[0].rejected)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=rf"{path.name} cannot be opened: .*cut short.*Delete the pairs that use it"):
        encode(pairs, tmp_path / "cache")


def test_a_turned_image_gets_the_bucket_of_what_is_shown(tmp_path):
    for name in ("a", "b"):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (48, 16), "red").save(tmp_path / f"{name}.png", exif=exif)
    pairs = [Pair("turned", str(tmp_path / "a.png"), str(tmp_path / "b.png"))]
    (batch,) = batches(encode(pairs, tmp_path / "cache"), [0])
    assert batch.latents.shape == (2, 4, 14, 4)
