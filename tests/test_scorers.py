"""Scorers on tiny real CLIP models, against the formulas written out again here."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTokenizer

from dpo.adapters import attach_adapter
from dpo.config import TrainConfig
from dpo.draws import pair_generator
from dpo.families import load_family
from dpo.pairs import Pair
from dpo.runs import Run, create_run
from dpo.scorer_choice import ScorerChoice, ScorerError
from dpo.scorers import load_scorer
from dpo.scores import Ask
from dpo.training import keep_reference
from tests.batches import move
from tests.clip import SIDE, save_aesthetic, save_clip
from tests.tiny import build_pipeline

TEXTS = ["a red ball", "a blue box on grass", "a red ball", "x" * 40]  # the last one is longer than the model reads


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def aesthetic(tmp_path_factory):
    return save_aesthetic(tmp_path_factory.mktemp("models") / "aesthetic")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Images of the very size the model sees, so that nothing is scaled or cut."""
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (len(TEXTS), SIDE, SIDE, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(len(TEXTS))]


@pytest.fixture
def asks(paths):
    return [Ask("", str(path), text) for path, text in zip(paths, TEXTS, strict=True)]


@torch.no_grad()
def cosines(folder, paths) -> tuple[torch.Tensor, float]:
    """(of each image and its own text, exp(logit_scale)), image by image through the model's own forward pass."""
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    found = []
    for path, text in zip(paths, TEXTS, strict=True):
        pixels = (torch.from_numpy(np.array(Image.open(path))) / 255 - mean) / std
        words = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
        output = model(pixel_values=pixels.permute(2, 0, 1)[None], **words)
        found.append(torch.cosine_similarity(output.image_embeds, output.text_embeds)[0])
    return torch.stack(found), model.logit_scale.exp().item()


def test_pickscore_is_the_scaled_cosine_of_image_and_prompt(clip, paths, asks, tmp_path):
    expected, scale = cosines(clip, paths)
    scores = load_scorer(ScorerChoice("pickscore", str(clip)), tmp_path).score(asks)
    assert scores == pytest.approx((scale * expected).tolist(), abs=1e-4)
    assert max(scores) - min(scores) > 0.1  # a constant would pass nothing here


def test_clip_score_is_the_cosine_times_two_and_a_half_and_never_below_zero(clip, paths, asks, tmp_path):
    expected, _ = cosines(clip, paths)
    assert expected.min() < 0 < expected.max()
    scores = load_scorer(ScorerChoice("clip", str(clip)), tmp_path).score(asks)
    assert scores == pytest.approx([max(0, 2.5 * value) for value in expected.tolist()], abs=1e-5)


def test_scores_do_not_depend_on_what_else_is_scored_at_the_same_time(clip, asks, tmp_path):
    scorer = load_scorer(ScorerChoice("pickscore", str(clip)), tmp_path)
    assert scorer.score(asks) == pytest.approx([scorer.score([ask])[0] for ask in asks], abs=1e-4)


def test_the_aesthetic_score_is_the_head_on_the_normalised_image_embedding_and_reads_no_prompt(aesthetic, paths, asks, tmp_path):
    scorer = load_scorer(ScorerChoice("aesthetic", str(aesthetic)), tmp_path)
    model, head = CLIPModel.from_pretrained(aesthetic / "clip"), load_file(aesthetic / "aesthetic.safetensors")
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    expected = []
    for path in paths:
        pixels = (torch.from_numpy(np.array(Image.open(path))) / 255 - mean) / std
        with torch.no_grad():
            found = model.visual_projection(model.vision_model(pixels.permute(2, 0, 1)[None]).pooler_output)[0]
        found = found / found.norm()
        for number in (0, 2, 4, 6, 7):
            found = head[f"layers.{number}.weight"] @ found + head[f"layers.{number}.bias"]
        expected.append(found.item())
    assert scorer.score(asks) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert scorer.score([ask._replace(text="other") for ask in asks]) == scorer.score(asks)


def test_a_file_that_cannot_be_opened_has_no_score_and_spoils_no_other(clip, asks, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    scorer = load_scorer(ScorerChoice("clip", str(clip)), tmp_path)
    scores = scorer.score([asks[0], Ask("", str(broken), "a red ball"), asks[1]])
    assert scores == [pytest.approx(scorer.score([asks[0]])[0]), None, pytest.approx(scorer.score([asks[1]])[0])]
    assert scorer.score([Ask("", str(broken), "a red ball")]) == [None]


def test_a_prompt_longer_than_the_model_reads_is_said_with_how_much_of_it_is_cut(clip, tmp_path):
    scorer = load_scorer(ScorerChoice("clip", str(clip)), tmp_path)
    assert scorer.cut("a" * 14) == 0  # 14 letters, a beginning and an end: 16
    assert scorer.cut("a" * 17) == 3


def test_the_prompt_is_read_without_its_lora_tags(clip):
    assert ScorerChoice("clip", str(clip)).text_of("  a cat, <lora:style:0.8>") == "a cat"


# ------------------------------------------------------------------------------------------------ what is refused


def test_pickled_weights_are_never_loaded(clip, tmp_path):
    folder = shutil.copytree(clip, tmp_path / "clip")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ScorerError, match="cannot be loaded: .*model.safetensors"):
        load_scorer(ScorerChoice("clip", str(folder)), tmp_path)


@pytest.mark.parametrize("name", ["head.pth", "head.pt", "head.ckpt"])
def test_a_pickled_head_is_refused_with_how_to_convert_it(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ScorerError, match="pickle.*safetensors"):
        ScorerChoice("aesthetic", str(tmp_path / name))


def test_a_model_without_all_its_weights_is_refused(clip, tmp_path):
    """transformers would make them up and say so only in the log."""
    folder = shutil.copytree(clip, tmp_path / "clip")
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ScorerError, match="1 weights are missing, such as visual_projection.weight"):
        load_scorer(ScorerChoice("clip", str(folder)), tmp_path)


def test_a_model_that_is_neither_here_nor_reachable_is_named(tmp_path):
    with pytest.raises(ScorerError, match="nobody/nothing cannot be loaded"):
        load_scorer(ScorerChoice("clip", "nobody/nothing"), tmp_path)


def test_pickscore_weights_without_a_processor_ask_for_the_one_they_were_trained_with(tmp_path):
    folder = save_clip(tmp_path / "pickscore", with_processor=False)
    with pytest.raises(ScorerError, match="laion/CLIP-ViT-H-14-laion2B-s32B-b79K cannot be loaded"):
        load_scorer(ScorerChoice("pickscore", str(folder)), tmp_path)


def test_a_head_for_another_clip_model_is_refused_with_both_sizes(aesthetic, tmp_path):
    folder = shutil.copytree(aesthetic, tmp_path / "aesthetic")
    save_file({"layers.0.weight": torch.zeros(1, 5), "layers.0.bias": torch.zeros(1)}, folder / "aesthetic.safetensors")
    with pytest.raises(ScorerError, match="takes embeddings of 5 numbers, and .*clip gives 8"):
        load_scorer(ScorerChoice("aesthetic", str(folder)), tmp_path)


HEADS = {
    "other names": {"weight": (1, 8)},
    "no bias": {"layers.0.weight": (1, 8)},
    "two outputs": {"layers.0.weight": (2, 8), "layers.0.bias": (2,)},
    "a gap": {"layers.0.weight": (4, 8), "layers.0.bias": (4,), "layers.1.weight": (1, 3), "layers.1.bias": (1,)},
}


@pytest.mark.parametrize("name", HEADS)
def test_a_file_that_is_no_aesthetic_head_is_refused(tmp_path, name):
    save_file({key: torch.zeros(shape) for key, shape in HEADS[name].items()}, tmp_path / "head.safetensors")
    with pytest.raises(ScorerError, match="is no LAION aesthetic head"):
        load_scorer(ScorerChoice("aesthetic", str(tmp_path / "head.safetensors")), tmp_path)


@pytest.mark.parametrize(
    "kind, model, reason",
    [
        ("taste", "", "scorer='taste' is not known"),
        ("clip", "not/a/place", "neither a folder that is there nor a hub id"),
        ("aesthetic", "", "needs its head"),
        ("aesthetic", "nowhere.safetensors", "nowhere.safetensors is not there"),
        ("adapter", "", "is not a run with an adapter"),
    ],
    ids=["kind", "place", "no head", "head not there", "no run"],
)
def test_what_can_be_known_to_be_wrong_is_said_before_anything_loads(kind, model, reason):
    with pytest.raises(ScorerError, match=reason):
        ScorerChoice(kind, model)


def test_a_scorer_is_named_by_its_kind_and_by_its_model_only_where_that_is_not_the_usual_one(clip):
    assert ScorerChoice("pickscore").name == "pickscore"
    assert ScorerChoice("pickscore").model == "yuvalkirstain/PickScore_v1"
    assert ScorerChoice("clip", str(clip)).name == "clip clip"
    assert replace(ScorerChoice("clip"), model=str(clip)).identity == f"clip {clip}"


# ------------------------------------------------------------------------------------------------ what a run has learned


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A diffusers folder of a tiny model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_pipeline().save_pretrained(folder)
    return folder


def run_with(tiny, folder, std, **settings) -> Run:
    """A run whose adapter does something as far as `std` is above 0."""
    family = load_family(build_pipeline())
    config = TrainConfig(model=str(tiny), lora_rank=2, resolution=SIDE, **settings)
    adapter = attach_adapter(family, config, starting=None, reference=None, moving=False)
    move(family, std)
    run = create_run(folder / "runs", "cats", config, [Pair(f"p{number}", "c", "r") for number in range(8)])
    adapter.save(run.adapter)
    return run


def test_the_reward_of_an_adapter_that_learned_nothing_is_exactly_zero(tiny, asks, tmp_path):
    run = run_with(tiny, tmp_path, 0.0)
    assert load_scorer(ScorerChoice("adapter", str(run.path)), tmp_path).score(asks) == [0.0] * 4


def test_the_reward_is_beta_times_how_much_better_the_policy_denoises_at_eight_places(tiny, asks, tmp_path):
    """The same draws taken by hand: in each eighth of the schedule one place, and one noise, for every image the same."""
    run = run_with(tiny, tmp_path, 0.5, beta=40.0, timestep_sampling="uniform", seed=3)
    scores = load_scorer(ScorerChoice("adapter", str(run.path)), tmp_path).score(asks)
    family = load_family(build_pipeline())
    attach_adapter(family, run.config, starting=run.adapter, reference=None, moving=False)
    for ask, score in zip(asks[:2], scores, strict=False):
        pixels = torch.from_numpy(np.array(Image.open(ask.path))).permute(2, 0, 1)[None] / 127.5 - 1
        latents, words = family.encode_images(pixels), family.encode_prompts([ask.text])
        total = 0.0
        for draw in range(8):
            generator = pair_generator("validation 3", draw)
            timesteps = family.timesteps((draw + torch.rand(1, generator=generator)) / 8)
            noisy, target = family.add_noise(latents, torch.randn(latents.shape[1:], generator=generator)[None], timesteps)
            with torch.no_grad():
                policy = (family.predict(noisy, timesteps, words) - target).square().mean()
                family.denoiser.disable_adapters()
                reference = (family.predict(noisy, timesteps, words) - target).square().mean()
                family.denoiser.enable_adapters()
            total += (reference - policy).item()
        assert score == pytest.approx(40 * total / 8, rel=1e-3, abs=1e-4)
        assert abs(score) > 0.01


def test_the_reward_of_an_image_does_not_depend_on_what_it_is_scored_with(tiny, asks, tmp_path):
    scorer = load_scorer(ScorerChoice("adapter", str(run_with(tiny, tmp_path, 0.5).path)), tmp_path)
    together = scorer.score(asks)
    assert together == pytest.approx([scorer.score([ask])[0] for ask in asks], rel=1e-3, abs=1e-3)
    assert len({round(score, 4) for score in together}) == 4


def test_the_reward_is_measured_against_the_adapter_that_training_started_from(tiny, asks, tmp_path):
    """The run ended where it began: by the base it is far, by its own reference it is nowhere."""
    start = run_with(tiny, tmp_path / "first", 0.5)
    run = run_with(tiny, tmp_path / "second", 0.5, starting_adapter=str(start.adapter))
    keep_reference(run, start.adapter)
    shutil.copyfile(start.adapter, run.adapter)
    assert load_scorer(ScorerChoice("adapter", str(run.path)), tmp_path).score(asks) == pytest.approx([0] * 4, abs=1e-6)


def test_a_run_that_cannot_open_a_file_scores_the_others(tiny, asks, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    scorer = load_scorer(ScorerChoice("adapter", str(run_with(tiny, tmp_path, 0.5).path)), tmp_path)
    broken = Ask("", str(tmp_path / "broken.png"), "a cat")
    scores = scorer.score([broken, asks[0]])
    assert scores[0] is None and scores[1] is not None
    assert scorer.score([broken]) == [None]
