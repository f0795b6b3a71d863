from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from dpo.cache import DataError, PairData, choose_bucket, encode_pairs, fit_image
from dpo.events import Note
from dpo.families import load_family
from dpo.pairs import Pair
from tests.metadata.files import chunk
from tests.tiny import build_pipeline, make_pairs


def encode(pairs, cache, family=None):
    *notes, data = encode_pairs(pairs, family or load_family(build_pipeline()), 16, cache)
    assert isinstance(data, PairData) and all(isinstance(note, Note) for note in notes)
    return data


def test_a_batch_holds_the_chosen_images_first_and_their_partners_after_them(tmp_path):
    family = load_family(build_pipeline())
    pairs = make_pairs(tmp_path / "images")
    (batch,) = encode(pairs, tmp_path / "cache", family).batches([3, 0], [7, 8])
    expected = [pairs[3].chosen, pairs[0].chosen, pairs[3].rejected, pairs[0].rejected]
    pixels = torch.stack([fit_image(path, (16, 16)) for path in expected])
    torch.testing.assert_close(batch.latents, family.encode_images(pixels), rtol=1e-4, atol=1e-5)
    prompts = family.encode_prompts([pairs[3].prompt, pairs[0].prompt] * 2)["prompt_embeds"]
    torch.testing.assert_close(batch.conditioning["prompt_embeds"], prompts)
    assert batch.comparisons.chosen.tolist() == [0, 1] and batch.comparisons.rejected.tolist() == [2, 3]
    assert batch.groups.tolist() == [0, 1, 0, 1] and batch.numbers == [7, 8]


def test_confidence_becomes_smoothing(tmp_path):
    pairs = [Pair(pair.prompt, pair.chosen, pair.rejected, confidence=0.75) for pair in make_pairs(tmp_path / "images")]
    (batch,) = encode(pairs, tmp_path / "cache").batches([0], [0])
    assert batch.comparisons.smoothing.tolist() == [0.25]


def test_images_of_other_shapes_make_batches_of_their_own(tmp_path):
    pairs = make_pairs(tmp_path / "images")
    for name in ("wide-a", "wide-b"):
        Image.new("RGB", (48, 16), "red").save(tmp_path / f"{name}.png")
    pairs.append(Pair("wide", str(tmp_path / "wide-a.png"), str(tmp_path / "wide-b.png")))
    batches = encode(pairs, tmp_path / "cache").batches([0, 8, 1], [0, 1, 2])
    assert [batch.numbers for batch in batches] == [[0, 2], [1]]
    assert batches[1].latents.shape == (2, 4, 4, 14)


def test_a_second_run_encodes_nothing_and_a_changed_image_or_model_is_encoded_again(tmp_path):
    pairs = make_pairs(tmp_path / "images")
    encode(pairs, tmp_path / "cache")
    files = {path.name for path in (tmp_path / "cache").iterdir()}
    assert len(files) == 16 + 4  # images, prompts

    family = load_family(build_pipeline())
    calls = []
    family.encode_images = lambda pixels: calls.append(pixels)
    encode(pairs, tmp_path / "cache", family)
    assert calls == []

    Image.new("RGB", (16, 16), "blue").save(pairs[0].chosen)
    encode(pairs, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 21

    other = load_family(build_pipeline())
    with torch.no_grad():
        other.pipeline.vae.encoder.conv_in.weight += 1
    encode(pairs, tmp_path / "cache", other)
    assert len(list((tmp_path / "cache").iterdir())) == 21 + 16


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
    (batch,) = encode(pairs, tmp_path / "cache").batches([0], [0])
    assert batch.latents.shape == (2, 4, 14, 4)
