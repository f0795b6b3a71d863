import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from dpo.checks import ChecksError, check_training, pixel_multiple, select_items
from dpo.config import TrainConfig
from dpo.families import load_family
from dpo.models import load_pipeline
from dpo.pairs import Like, Pair, Ranking
from tests.headers import FILES, REFUSED, write_safetensors
from tests.tiny import make_pairs

ROOT = Path(__file__).resolve().parent.parent
CONFIG = TrainConfig(resolution=64)


def problems(config, items, **more) -> list[str]:
    with pytest.raises(ChecksError) as caught:
        check_training(config, items, **more)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def picture(path: Path, size: tuple[int, int]) -> str:
    Image.new("RGB", size).save(path)
    return str(path)


# ------------------------------------------------------------------------------------------------ selection


def picked(count: int) -> list[Pair]:
    return [Pair(f"prompt {number}", f"{number}-a.png", f"{number}-b.png") for number in range(count)]


@pytest.mark.parametrize(
    "settings, left",
    [
        ({}, [0, 1, 2, 3]),
        ({"rater": "anna"}, [0, 2]),
        ({"source": "duel"}, [1, 2]),
        ({"round": "2"}, [3]),
        ({"min_confidence": 0.8}, [0, 1, 3]),
        ({"rater": "anna", "source": "duel"}, [2]),
        ({"rater": "nobody"}, []),
    ],
)
def test_what_is_left_out_is_what_the_settings_say(settings, left):
    items = [
        Pair("a", "0a", "0b", rater="anna"),
        Pair("b", "1a", "1b", rater="bert", source="duel", confidence=0.8),
        Ranking("c", ("2a", "2b", "2c"), rater="anna", source="duel", confidence=0.79),
        Like("d", "3a", True, round="2"),
    ]
    assert select_items(items, TrainConfig(**settings)) == [items[index] for index in left]


def test_at_most_so_many_are_drawn_by_the_seed_and_keep_their_order():
    items = picked(50)
    chosen = select_items(items, TrainConfig(max_pairs=20))
    assert len(chosen) == 20 and chosen == [item for item in items if item in chosen]
    assert chosen == select_items(items, TrainConfig(max_pairs=20))
    assert chosen != items[:20]
    assert chosen != select_items(items, TrainConfig(max_pairs=20, seed=1))
    assert select_items(items, TrainConfig(max_pairs=50)) == items


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.randoms())
def test_a_draw_holds_every_smaller_one_whatever_the_order_of_picks(one, other, shuffler: random.Random):
    items = picked(30)
    shuffled = items.copy()
    shuffler.shuffle(shuffled)
    fewer = select_items(items, TrainConfig(max_pairs=min(one, other)))
    more = select_items(shuffled, TrainConfig(max_pairs=max(one, other)))
    assert set(fewer) <= set(more)


def test_the_filters_come_before_the_draw():
    items = [replace(item, rater="anna" if number % 2 else "") for number, item in enumerate(picked(20))]
    chosen = select_items(items, TrainConfig(max_pairs=8, rater="anna"))
    assert len(chosen) == 8 and {item.rater for item in chosen} == {"anna"}


# ------------------------------------------------------------------------------------------------ what stands in the way


def test_a_run_that_can_be_made_passes_without_a_word(tmp_path):
    assert check_training(CONFIG, make_pairs(tmp_path)) == []


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    pairs = make_pairs(tmp_path, prompts=3, per_prompt=1)
    Path(pairs[0].chosen).unlink()
    Path(pairs[1].chosen).write_bytes(b"not an image")
    picture(Path(pairs[2].rejected), (160, 64))
    config = replace(CONFIG, model="nowhere/to/be/found", starting_adapter=str(tmp_path / "gone.safetensors"))
    found = problems(config, pairs)
    for problem, part in zip(
        found,
        ["model='nowhere/to/be/found'", "starting_adapter: ", "There are 3 pairs", "1 image of the pairs is gone",
         "1 image of the pairs cannot be read", "In 1 of the pairs the images differ in shape"],
        strict=True,
    ):  # fmt: skip
        assert part in problem and "\n" not in problem


def test_images_that_are_gone_are_counted_once_each_and_a_few_are_named(tmp_path):
    pairs = make_pairs(tmp_path)
    for pair in pairs[:5]:
        Path(pair.chosen).unlink()
    (problem,) = problems(CONFIG, [*pairs, pairs[0]])
    assert problem.startswith(
        f"5 images of the pairs are gone: {pairs[0].chosen}, {pairs[1].chosen}, {pairs[2].chosen}, and 2 more."
    )
    assert problem.endswith("Bring back what is missing, or delete those pairs.")


def test_pairs_of_different_shapes_are_named_with_their_sizes(tmp_path):
    pairs = make_pairs(tmp_path / "images")
    wide, narrow = picture(tmp_path / "wide.png", (96, 64)), picture(tmp_path / "narrow.png", (64, 96))
    pairs += [Pair("odd", wide, narrow), Pair("odd", narrow, wide)]
    (problem,) = problems(CONFIG, pairs)
    assert problem.startswith(
        f"In 2 of the pairs the images differ in shape at resolution 64, such as {wide} (96 x 64) and {narrow} (64 x 96)."
    )


@pytest.mark.parametrize("resolution, fits", [(64, False), (16, True)])
def test_what_shapes_differ_depends_on_the_resolution_and_on_the_model(tmp_path, resolution, fits):
    """The demo model's sides are multiples of 16: 96 x 64 becomes 80 x 48 at 64, and 16 x 16, as 64 x 64 does, at 16."""
    pairs = make_pairs(tmp_path / "images")
    pairs.append(Pair("odd", picture(tmp_path / "a.png", (96, 64)), picture(tmp_path / "b.png", (64, 64))))
    config = replace(CONFIG, resolution=resolution)
    assert (check_training(config, pairs) == []) if fits else ("64 x 64" in problems(config, pairs)[0])


def test_all_images_of_a_ranking_must_have_one_shape_and_a_like_has_it_anyway(tmp_path):
    paths = [picture(tmp_path / f"{number}.png", (64, 64)) for number in range(3)]
    odd = picture(tmp_path / "odd.png", (160, 64))
    rankings = [Ranking(f"prompt {number}", (*paths[:2], odd if number == 4 else paths[2])) for number in range(5)]
    (problem,) = problems(replace(CONFIG, loss="rankdpo"), rankings)
    assert problem.startswith("In 1 of the rankings the images differ in shape")
    likes = [Like(f"prompt {number}", path, number > 1) for number, path in enumerate([*paths, odd])]
    assert check_training(replace(CONFIG, loss="kto"), likes) == []


def test_a_loss_is_given_what_it_learns_from(tmp_path):
    pairs = make_pairs(tmp_path)
    (problem,) = problems(replace(CONFIG, loss="kto"), [*pairs, Like("a", pairs[0].chosen, True)])
    assert problem == "loss='kto' learns from likes, and 8 of 9 items are none. Choose another."


def test_too_few_pairs_name_the_filters_that_leave_them(tmp_path):
    pairs = make_pairs(tmp_path, prompts=3, per_prompt=1)
    assert problems(CONFIG, pairs) == ["There are 3 pairs and training needs at least 4. Pick a few more in Pairs."]
    assert problems(replace(CONFIG, rater="anna", min_confidence=0.9), pairs) == [
        "There are 3 pairs and training needs at least 4. Pick a few more, or loosen rater='anna' and min_confidence=0.9."
    ]


def test_every_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("dpo.extras.pkgutil.iter_modules", lambda: [])
    found = problems(replace(CONFIG, optimizer="adamw_8bit", tracker="wandb"), make_pairs(tmp_path))
    assert [problem.split(".")[0] for problem in found] == [
        "optimizer='adamw_8bit' needs a package: pip install bitsandbytes", "tracker='wandb' needs a package: pip install wandb",
    ]  # fmt: skip


def test_a_model_that_cannot_be_trained_is_refused_by_its_files(tmp_path):
    pairs = make_pairs(tmp_path / "images")
    file = write_safetensors(tmp_path / "refiner.safetensors", REFUSED["refiner"][0])
    (problem,) = problems(replace(CONFIG, model=str(file)), pairs)
    assert "refiner.safetensors is the refiner of Stable Diffusion XL" in problem
    (tmp_path / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    (problem,) = problems(replace(CONFIG, model=str(tmp_path)), pairs)
    assert problem.startswith(f"{tmp_path} is a WanPipeline, which cannot be trained yet. Supported: Stable Diffusion 1.x and")
    file = write_safetensors(tmp_path / "xl.safetensors", FILES["sdxl"])
    (problem,) = problems(replace(CONFIG, model=str(file), components="/no/such/folder"), pairs)
    assert "'/no/such/folder' is neither a folder nor a hub id" in problem
    assert check_training(replace(CONFIG, model=str(file)), pairs) == []


@pytest.mark.parametrize("field", ["base_adapter", "starting_adapter", "reference_adapter"])
def test_an_adapter_that_is_none_is_refused_by_its_header(tmp_path, field):
    pairs, path = make_pairs(tmp_path / "images"), tmp_path / "model.safetensors"
    save_file({"unet.weight": torch.zeros(1)}, path)
    (problem,) = problems(replace(CONFIG, **{field: str(path)}), pairs)
    assert problem.startswith(f"{field}: {path} holds no LoRA")
    save_file({"unet.to_q.lora_A.weight": torch.zeros(1, dtype=torch.bfloat16)}, path)
    assert check_training(replace(CONFIG, **{field: str(path)}), pairs) == []
    path.write_bytes(path.read_bytes()[:20])
    (problem,) = problems(replace(CONFIG, **{field: str(path)}), pairs)
    assert problem.startswith(f"{field}: {path} is damaged")


def test_a_disk_too_full_for_the_cache_is_known_before_it_is_filled(tmp_path, monkeypatch):
    """16 images of 4096 x 4096: latents of 512 x 512 x 4 floats are 4 MiB each, and 4 prompts at 256 KiB make 65 MiB."""
    pairs, cache = make_pairs(tmp_path / "images"), tmp_path / "cache" / "tensors"
    config, needed = replace(CONFIG, resolution=4096), 65 << 20
    space = {"free": needed}
    monkeypatch.setattr("dpo.checks.shutil.disk_usage", lambda _: type("Usage", (), space))
    assert check_training(config, pairs, cache) == []
    space["free"] -= 1
    (problem,) = problems(config, pairs, cache=cache)
    assert problem.startswith(f"Preparing 16 images takes about 0.1 GB in {cache}, and 0.1 GB are free. Free some space")
    assert check_training(config, pairs) == []
    cache.mkdir(parents=True)
    (cache / "a.safetensors").write_bytes(b"1")  # what is encoded already needs no more room
    assert check_training(config, pairs, cache) == []


# ------------------------------------------------------------------------------------------------ what will be missing


@pytest.mark.parametrize(
    "settings, reason",
    [({"validation_share": 0.0}, "validation_share is 0"), ({"validate_every": 0}, "validate_every is 0")],
)
def test_a_run_without_validation_says_why(tmp_path, settings, reason):
    (warning,) = check_training(replace(CONFIG, **settings), make_pairs(tmp_path))
    assert warning.startswith(f"Validation is off: {reason}. Accuracy is then measured on what was trained")


def test_pairs_of_one_prompt_leave_nothing_to_validate_on(tmp_path):
    (warning,) = check_training(CONFIG, make_pairs(tmp_path, prompts=1, per_prompt=8))
    assert warning.startswith("Validation is off: all pairs have the same prompt, and it keeps out whole prompts.")


# ------------------------------------------------------------------------------------------------ cheap to ask


def test_the_multiple_of_a_model_is_known_without_loading_it(tmp_path):
    assert pixel_multiple("demo") == load_family(load_pipeline("demo")).pixel_multiple
    for part, levels in (("vae", 4), ("unet", 3)):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps({"block_out_channels": [1] * levels}))
    assert pixel_multiple(str(tmp_path)) == 64  # not a diffusers folder
    (tmp_path / "model_index.json").write_text("{}")
    assert pixel_multiple(str(tmp_path)) == 32
    assert pixel_multiple("owner/name") == 64
    assert pixel_multiple("some.safetensors", str(tmp_path)) == 32
    (tmp_path / "unet" / "config.json").write_text("[")
    assert pixel_multiple(str(tmp_path)) == 64


def test_checking_loads_neither_torch_nor_pillow(tmp_path):
    pairs = make_pairs(tmp_path)
    program = (
        "import sys; from dpo.checks import check_training; from dpo.config import TrainConfig; from dpo.pairs import Pair\n"
        f"check_training(TrainConfig(), {pairs!r})\n"
        "print([name for name in ('torch', 'diffusers', 'peft', 'PIL') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


def test_likes_that_are_all_of_one_kind_teach_nothing(tmp_path):
    likes = [Like(pair.prompt, pair.chosen, True) for pair in make_pairs(tmp_path)]
    (problem,) = problems(replace(CONFIG, loss="kto"), likes)
    assert problem.endswith(f"what sets good images apart from bad ones, and all {len(likes)} are good.")


def test_without_validation_a_loss_without_reference_has_nothing_that_sees_damage(tmp_path):
    (warning,) = check_training(replace(CONFIG, loss="mapo", validate_every=0), make_pairs(tmp_path))
    assert warning == (
        "Validation is off: validate_every is 0. Nothing then tells learning from damage, for this loss has no reference."
    )


def test_pairs_that_differ_only_below_where_the_draws_begin_are_named(tmp_path):
    items = [replace(pair, max_timestep=0.3) if number < 3 else pair for number, pair in enumerate(make_pairs(tmp_path))]
    assert check_training(replace(CONFIG, min_timestep=0.29), items) is not None
    found = problems(replace(CONFIG, min_timestep=0.5), items)
    assert found == [
        "The images of 3 of the pairs differ only below timestep 0.3, and min_timestep begins at 0.5. Lower it, or leave those "
        "pairs out (round, source)."
    ]
    assert "timestep_list begins at 0.3" in problems(
        replace(CONFIG, timestep_sampling="list", timestep_list="0.3, 0.9"), items
    )[0]  # fmt: skip
