"""Images for the page, by signed id: /studio/image/<token>, where the token is KIND-ID-SIGNATURE.

The id is the image's content key, so an address says nothing of where a file lies and stays good for as long as the file
does. What is sent is always drawn anew from decoded pixels (turned as its orientation says, without any metadata), never
the original file: an image that is really a web page is no web page here. Drawing and keeping: `dpo.previews`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dpo.drawing import LONGEST_SIDE
from dpo.pixels import PixelError
from ui.rights import open_to

if TYPE_CHECKING:
    from ui.session import Studio

_FOREVER = "private, max-age=31536000, immutable"  # the id names the content


def image_url(studio: Studio, key: str, kind: str = "preview") -> str:
    """The address of a library image. `kind`: "thumb" (long side at most 256 pixels), "preview" (1280) or "full" (4096)."""
    return f"/studio/image/{_sign(studio, kind, key)}"


def file_url(studio: Studio, path: Path, kind: str = "full") -> str:
    """The address of an image file in the project folder that is not in the library, such as one made by Compare. `kind`: as
    above.

    It is drawn and kept now, so that no path has to be remembered. Raises PixelError for a file elsewhere or unreadable.
    """
    path = Path(path).resolve()
    if not path.is_relative_to(studio.project.path):
        raise PixelError(f"{path} is not in the project folder {studio.project.path}, so it is not shown.")
    return image_url(studio, studio.project.previews.get_file(path, kind), kind)


def routes(studio: Studio) -> list[Route]:
    """The routes to give to the app. 404 for a token we did not sign and for an image that is gone or broken."""

    @open_to("viewer")
    def send(request: Request) -> Response:
        kind, key = _read_token(studio, request.path_params["token"])
        if not kind:
            return PlainTextResponse("No such image.", status_code=404)
        image = studio.project.library.image(key) if studio.is_shared else None
        if image is not None and not studio.places.has(image.path):
            why = "This image lies outside what the page may reach. Whoever started it can open its folder with --root."
            return PlainTextResponse(why, status_code=404, headers={"Cache-Control": "no-store"})
        headers = {"Cache-Control": _FOREVER, "X-Content-Type-Options": "nosniff"}
        try:
            data, media_type = studio.project.previews.get(key, kind)
        except PixelError as error:
            return PlainTextResponse(str(error), status_code=404, headers={"Cache-Control": "no-store"})
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
