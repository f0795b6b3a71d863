import io

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dpo.jobs import JobRegistry
from dpo.pixels import PixelError
from dpo.project import open_project
from tests.pictures import plain, write_prompted
from ui.images import file_url, image_url, routes
from ui.session import Studio


@pytest.fixture
def studio(tmp_path):
    return Studio(open_project(tmp_path / "project"), JobRegistry(), b"secret of this test")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def client(studio):
    return TestClient(Starlette(routes=routes(studio)))


def key_of(studio, path) -> str:
    studio.project.library.scan(path.parent)
    return next(image.key for image in studio.project.library.images(path.parent) if image.path == str(path))


def decode(response) -> Image.Image:
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


def test_small_images_arrive_without_loss_and_without_metadata(studio, client, folder):
    picture = Image.effect_noise((64, 64), 80).convert("RGB")
    path = write_prompted(folder / "a.png", "a secret prompt", picture)
    response = client.get(image_url(studio, key_of(studio, path)))
    sent = decode(response)
    assert sent.convert("RGB").tobytes() == picture.tobytes()
    assert b"secret prompt" not in response.content and not sent.info.get("parameters")


def test_large_images_are_made_smaller_and_keep_their_shape(studio, client, folder):
    path = write_prompted(folder / "a.png", "wide", plain("blue", (3000, 1500)))
    key = key_of(studio, path)
    preview, full = client.get(image_url(studio, key)), client.get(image_url(studio, key, "full"))
    thumb = client.get(image_url(studio, key, "thumb"))
    assert decode(thumb).size == (256, 128)
    assert decode(preview).size == (1280, 640)
    assert decode(full).size == (3000, 1500)
    assert [each.headers["content-type"] for each in (thumb, preview, full)] == ["image/webp", "image/webp", "image/jpeg"]


def test_orientation_is_applied(studio, client, folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    plain("green", (300, 200)).save(folder / "a.jpg", exif=exif)
    assert decode(client.get(image_url(studio, key_of(studio, folder / "a.jpg")))).size == (200, 300)


@pytest.mark.parametrize("side", [300, 3000])
@pytest.mark.parametrize("kind", ["thumb", "preview", "full"])
def test_an_image_does_not_say_where_it_was_taken(studio, client, folder, side, kind):
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 29.6), 3: "E", 4: (2.0, 17.0, 40.2)}  # latitude and longitude
    exif[0x010F] = "a camera of somebody's"
    path = folder / "a.jpg"
    plain("green", (side, 200)).save(path, exif=exif)
    assert b"a camera of" in path.read_bytes() and Image.open(path).getexif().get_ifd(0x8825)
    response = client.get(image_url(studio, key_of(studio, path), kind))
    assert not decode(response).getexif() and b"a camera of" not in response.content and b"Exif" not in response.content


def test_a_shared_page_shows_no_image_from_outside_what_it_reaches(studio, client, folder):
    key = key_of(studio, write_prompted(folder / "a.png", "a", plain()))
    address = image_url(studio, key)
    studio.is_shared = True
    answer = client.get(address)
    assert answer.status_code == 404 and "--root" in answer.text and answer.headers["cache-control"] == "no-store"
    studio.roots = (folder,)
    assert client.get(address).status_code == 200


def test_answers_are_private_kept_long_and_not_sniffed(studio, client, folder):
    path = write_prompted(folder / "a.png", "a", plain())
    headers = client.get(image_url(studio, key_of(studio, path))).headers
    assert headers["cache-control"].startswith("private, max-age=")
    assert headers["x-content-type-options"] == "nosniff"


def test_a_second_request_needs_the_file_no_more(studio, client, folder):
    path = write_prompted(folder / "a.png", "a", plain())
    url = image_url(studio, key_of(studio, path))
    first = client.get(url)
    path.unlink()
    assert client.get(url).content == first.content


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url[:-1] + ("0" if url[-1] != "0" else "1"),
        lambda url: url.replace("preview", "full"),
        lambda url: url.replace("preview", "thumb"),
        lambda url: url.replace("preview", "original"),
        lambda url: "/studio/image/",
        lambda url: "/studio/image/preview",
        lambda url: "/studio/image/..%2f..%2fpicks.sqlite",
        lambda url: url.rsplit("-", 1)[0] + "-é",
    ],
)
def test_a_token_we_did_not_sign_is_not_found(studio, client, folder, change):
    path = write_prompted(folder / "a.png", "a", plain())
    url = image_url(studio, key_of(studio, path))
    assert client.get(url).status_code == 200
    assert client.get(change(url)).status_code == 404


def test_a_token_of_another_project_is_not_found(studio, client, folder):
    path = write_prompted(folder / "a.png", "a", plain())
    stranger = Studio(studio.project, studio.jobs, b"another secret")
    assert client.get(image_url(stranger, key_of(studio, path))).status_code == 404


def test_no_address_says_where_a_file_lies(studio, folder):
    path = write_prompted(folder / "a.png", "a", plain())
    url = image_url(studio, key_of(studio, path))
    assert "images" not in url and ".png" not in url


def test_a_broken_image_is_not_found_and_never_sent_as_it_is(studio, client, folder):
    path = write_prompted(folder / "a.png", "a", plain(size=(300, 300)))
    path.write_bytes(path.read_bytes()[:200] + b"<script>alert(1)</script>")
    response = client.get(image_url(studio, key_of(studio, path)))
    assert response.status_code == 404
    assert "script" not in response.text


def test_an_image_of_absurd_size_is_refused_before_it_is_decoded(studio, client, folder, monkeypatch):
    monkeypatch.setattr("dpo.pixels.MOST_PIXELS", 1000)
    path = write_prompted(folder / "a.png", "a", plain(size=(64, 64)))
    response = client.get(image_url(studio, key_of(studio, path)))
    assert response.status_code == 404 and "too many" in response.text


def test_files_of_the_project_can_be_shown_and_others_cannot(studio, client, folder):
    inside = write_prompted(studio.project.path / "made.png", "made", plain("red"))
    assert decode(client.get(file_url(studio, inside))).size == (64, 64)
    outside = write_prompted(folder / "a.png", "a", plain())
    for path in (outside, studio.project.path / ".." / "images" / "a.png"):
        with pytest.raises(PixelError, match="not in the project folder"):
            file_url(studio, path)


def test_an_image_is_sent_even_when_the_cache_cannot_be_written(studio, client, folder):
    (studio.project.cache / "previews").write_text("in the way of the folder")
    path = write_prompted(folder / "a.png", "a", plain())
    assert decode(client.get(image_url(studio, key_of(studio, path)))).size == (64, 64)
