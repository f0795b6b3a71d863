"""Images for the page, by signed id: /studio/image/<token>, where the token is KIND-ID-SIGNATURE.

The id is the image's content key, so an address says nothing of where a file lies and stays good for as long as the file
does. What is sent is always drawn anew from decoded pixels (turned as its orientation says, without any metadata), never
the original file: an image that is really a web page is no web page here.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dpo import StudioError
from dpo.library import content_key

if TYPE_CHECKING:
    from ui.session import Studio

LONGEST_SIDE = {"preview": 1280, "full": 4096}  # pixels
LOSSLESS_SIDE = 256  # images up to this are shown enlarged, where the blocks of JPEG would be seen
JPEG_QUALITY = 90
MOST_PIXELS = 100_000_000  # of a file; more is not decoded
_FOREVER = "private, max-age=31536000, immutable"  # the id names the content


class ImageError(StudioError):
    """An image that cannot be shown."""


def image_url(studio: Studio, key: str, kind: str = "preview") -> str:
    """The address of a library image. `kind`: "preview" (long side at most 1280) or "full" (at most 4096)."""
    return f"/studio/image/{_sign(studio, kind, key)}"


def file_url(studio: Studio, path: Path) -> str:
    """The address of an image file in the project folder that is not in the library, such as one made by Compare.

    It is drawn and kept now, so that no path has to be remembered. Raises ImageError for a file elsewhere or unreadable.
    """
    path = Path(path).resolve()
    if not path.is_relative_to(studio.project.path):
        raise ImageError(f"{path} is not in the project folder {studio.project.path}, so it is not shown.")
    try:
        key = content_key(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}.") from error
    if _cached(studio, "full", key) is None:
        _keep(studio, "full", key, *_render(path, "full"))
    return image_url(studio, key, "full")


def routes(studio: Studio) -> list[Route]:
    """The routes to give to the app. 404 for a token we did not sign and for an image that is gone or broken."""

    def send(request: Request) -> Response:
        kind, key = _read_token(studio, request.path_params["token"])
        if not kind:
            return PlainTextResponse("No such image.", status_code=404)
        headers = {"Cache-Control": _FOREVER, "X-Content-Type-Options": "nosniff"}
        cached = _cached(studio, kind, key)
        try:
            if cached is None:
                image = studio.project.library.image(key)
                if image is None:
                    raise ImageError("This image is not in the index. Scan its folder again.")
                cached = _render(Path(image.path), kind)
                _keep(studio, kind, key, *cached)
        except ImageError as error:
            return PlainTextResponse(str(error), status_code=404, headers={"Cache-Control": "no-store"})
        data, media_type = cached
        return Response(data, media_type=media_type, headers=headers)

    # Not async: decoding takes milliseconds and belongs into the thread pool.
    return [Route("/studio/image/{token}", send, methods=["GET"])]


def _sign(studio: Studio, kind: str, key: str) -> str:
    assert kind in LONGEST_SIDE, kind
    return f"{kind}-{key}-{studio.sign('image', f'{kind} {key}')}"


def _read_token(studio: Studio, token: str) -> tuple[str, str]:
    """(kind, key) of a token that we signed, else two empty strings."""
    kind, _, rest = token.partition("-")
    key, _, signature = rest.partition("-")
    if kind in LONGEST_SIDE and studio.is_signed("image", f"{kind} {key}", signature):
        return kind, key
    return "", ""


def _render(path: Path, kind: str) -> tuple[bytes, str]:
    """Encoded pixels and their media type: WebP without loss for small images, else JPEG without chroma subsampling."""
    try:
        with Image.open(path) as file:
            if file.width * file.height > MOST_PIXELS:
                raise ImageError(f"{path.name} has {file.width} x {file.height} pixels, too many to show.")
            file.draft("RGB", (LONGEST_SIDE[kind],) * 2)
            image = _flatten(ImageOps.exif_transpose(file))
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error on broken files
        raise ImageError(f"{path.name} cannot be decoded: the file is cut short or damaged.") from error
    image.thumbnail((LONGEST_SIDE[kind],) * 2, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(image.size) <= LOSSLESS_SIDE:
        image.save(buffer, "WEBP", lossless=True, quality=50, method=2)
        return buffer.getvalue(), "image/webp"
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue(), "image/jpeg"


def _flatten(image: Image.Image) -> Image.Image:
    """Plain RGB; what is transparent shows the dark ground that images lie on."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (13, 13, 12, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")


def _cached(studio: Studio, kind: str, key: str) -> tuple[bytes, str] | None:
    path = _cache_path(studio, kind, key)
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data, "image/webp" if data[8:12] == b"WEBP" else "image/jpeg"


def _keep(studio: Studio, kind: str, key: str, data: bytes, media_type: str) -> None:
    """Through a temporary file: another request never reads half an image. A full disk costs only the cache."""
    path = _cache_path(studio, kind, key)
    unfinished = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def _cache_path(studio: Studio, kind: str, key: str) -> Path:
    return studio.project.cache / "previews" / key[:2] / f"{key}-{kind}"
