"""Draw Things: XMP, read through a whole file."""

import json
from xml.sax.saxutils import escape

from dpo.metadata import Lora, read_image
from tests.metadata.files import chunk, png

SETTINGS = {
    "c": "a <cat>", "uc": "blurry", "model": "some_v1.ckpt", "sampler": "Euler a", "scale": 7.5, "seed": 42, "steps": 20,
    "size": "960x1280", "lora": [{"model": "fur.ckpt", "weight": 0.6}], "strength": 1, "v2": {"width": 960},
}  # fmt: skip
DESCRIPTION = (
    "a cat,\non a sofa\n-blurry\nSteps: 20, Sampler: Euler a, Guidance Scale: 7.5, Seed: 42, Size: 960x1280, Model: some_v1"
)


def xmp(tool: str, comment: str = "", description: str = "") -> bytes:
    def alt(name, text):
        return f'<{name}><rdf:Alt><rdf:li xml:lang="x-default">{escape(text)}</rdf:li></rdf:Alt></{name}>' if text else ""

    text = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        f'xmlns:xmp="http://ns.adobe.com/xap/1.0/"><xmp:CreatorTool>{tool}</xmp:CreatorTool>'
        f"{alt('dc:description', description)}{alt('exif:UserComment', comment)}</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    return png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text.encode()))


def read(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    return read_image(tmp_path / "a.png")


def test_settings_are_read_from_the_json(tmp_path):
    record = read(tmp_path, xmp("Draw Things", json.dumps(SETTINGS), DESCRIPTION))
    assert (record.prompt, record.negative_prompt, record.seed, record.steps) == ("a <cat>", "blurry", 42, 20)
    assert (record.guidance, record.sampler, record.model) == (7.5, "Euler a", "some_v1.ckpt")
    assert (record.loras, record.written_size) == ((Lora("fur.ckpt", 0.6),), (960, 1280))
    assert (record.generator, record.where) == ("drawthings", "XMP UserComment")


def test_description_is_read_where_the_json_is_gone(tmp_path):
    record = read(tmp_path, xmp("Draw Things", description=DESCRIPTION))
    assert (record.prompt, record.negative_prompt, record.seed) == ("a cat,\non a sofa", "blurry", 42)
    assert (record.guidance, record.written_size) == (7.5, (960, 1280))


def test_description_of_a_photo_is_no_prompt(tmp_path):
    record = read(tmp_path, xmp("Camera 5", description="A cat on my sofa, in June"))
    assert (record.prompt, record.reason) == (None, "unknown_metadata")
