import numpy as np
import pytest
from PIL import Image

from dpo.compare import BASE, LookRow, Variant
from dpo.grids import GAP, LEFT, draw_grid
from dpo.pixels import PixelError

COLOURS = [["red", "lime"], ["blue", "yellow"], ["cyan", "magenta"]]


@pytest.fixture
def rows(tmp_path):
    """Three rows by two variants, each image of one colour, 200 pixels wide and 100 high, and prompts such as people write."""
    prompts = ["costs $5 or $x_{$", "一只猫坐在沙发上 " * 30, "a \\frac{1 ${broken}"]
    found = []
    for number, (prompt, colours) in enumerate(zip(prompts, COLOURS, strict=True)):
        paths = tuple(tmp_path / f"{number}-{colour}.png" for colour in colours)
        for path, colour in zip(paths, colours, strict=True):
            Image.new("RGB", (200, 100), colour).save(path)
        found.append(LookRow(prompt, number, paths))
    return found


VARIANTS = (BASE, Variant("cats-1 step 40 $a_{$", None, 0.5))


@pytest.mark.filterwarnings("ignore:Glyph")  # of machines without a font for it
def test_every_image_stands_whole_in_the_column_of_its_variant_and_the_row_of_its_prompt(rows, tmp_path):
    draw_grid(rows, VARIANTS, tmp_path / "new" / "grid.png")
    grid = np.asarray(Image.open(tmp_path / "new" / "grid.png").convert("RGB"))
    assert grid.shape[1] == LEFT + 2 * (200 + GAP) + GAP
    for number, colours in enumerate(COLOURS):
        for column, colour in enumerate(colours):
            found = (grid == Image.new("RGB", (1, 1), colour).getpixel((0, 0))).all(-1)
            assert found.sum() == 200 * 100, colour
            down, right = np.argwhere(found)[0]
            assert right == LEFT + column * (200 + GAP)
            assert down == np.argwhere((grid == (255, 0, 0)).all(-1))[0][0] + number * (100 + GAP)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_labels_are_dark_on_white_beside_and_above_and_never_on_an_image(rows, tmp_path):
    draw_grid(rows, VARIANTS, tmp_path / "grid.png")
    grid = np.asarray(Image.open(tmp_path / "grid.png").convert("L")).astype(int)
    top = np.argwhere((np.asarray(Image.open(tmp_path / "grid.png").convert("RGB")) == (255, 0, 0)).all(-1))[0][0]
    for number in range(3):
        beside = grid[top + number * (100 + GAP) : top + number * (100 + GAP) + 100, :LEFT]
        assert (beside < 100).sum() > 50  # letters
        assert (beside[-2:] == 255).all() and (beside[:, -GAP + 2 :] == 255).all()  # which end where the next begins
    for column in range(2):
        left = LEFT + column * (200 + GAP)
        assert (grid[:top, left : left + 200] < 100).sum() > 30
    assert (grid[:top, LEFT + 200 : LEFT + 200 + GAP] == 255).all()


def test_small_images_are_drawn_larger_and_many_rows_smaller_so_that_the_whole_can_be_drawn(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    row = LookRow("a", 1, (tmp_path / "a.png",))
    draw_grid([row], [BASE], tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").width == LEFT + 160 + 2 * GAP
    draw_grid([row] * 300, [BASE], tmp_path / "grid.png")
    assert 25_000 < Image.open(tmp_path / "grid.png").height < 31_000


def test_an_image_that_is_gone_is_named(rows, tmp_path):
    rows[1].images[0].unlink()
    with pytest.raises(PixelError, match=r"1-blue.png cannot be opened"):
        draw_grid(rows, VARIANTS, tmp_path / "grid.png")
