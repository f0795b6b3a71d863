"""A project as one zip, to take away and to open elsewhere: what people said, runs, exports, the images that they are about.

    Project -> pack -> FILE.zip -> unpack -> a folder that `open_project` opens

Inside the zip no path says where anything was: each is written from the project's folder, behind a mark, and images from
elsewhere lie in images/. No secret, cache or index comes along. A zip may come from anybody: every name in it is checked before
anything is written, and what people said is held against the tables that a project has.
"""

from dpo.bundle.contents import IMAGES, BundleError
from dpo.bundle.packing import Packed, pack
from dpo.bundle.unpacking import Unpacked, take_over, unpack

__all__ = ["IMAGES", "BundleError", "Packed", "Unpacked", "pack", "take_over", "unpack"]
