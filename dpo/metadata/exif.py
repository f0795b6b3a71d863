"""EXIF, XMP and content credentials: the blocks that any container may hold.

None is believed further than it can be checked: offsets go stale when a file is edited, UserComment's character code and
byte order are wrong more often than right, and what can be read of a damaged block is.
"""

from __future__ import annotations

import re
import struct
from xml.etree import ElementTree

from dpo.metadata.filewalk import FileWalk, decode

TEXT_TAGS = {
    0x010D: "DocumentName",
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x013B: "Artist",
    0x8298: "Copyright",
    0x927C: "MakerNote",
    0x9286: "UserComment",
    0x9C9B: "XPTitle",
    0x9C9C: "XPComment",
    0x9C9E: "XPKeywords",
    0x9C9F: "XPSubject",
}
ORIENTATION, EXIF_DIRECTORY, MAKER_NOTE, USER_COMMENT = 0x0112, 0x8769, 0x927C, 0x9286
TEXT_KINDS = (1, 2, 7, 129)  # bytes, ASCII, undefined, UTF-8: a byte each
MAX_ENTRIES = 1000  # in a directory; cameras write about 50
TIFF = re.compile(rb"II\*\0|MM\0\*")
CHARACTER_CODES = (b"ASCII\0\0\0", b"UNICODE\0", b"JIS\0\0\0\0\0", b"\0" * 8)
# Letters of scripts that prompts are written in. Bytes in the wrong order are as often letters of scripts that none is.
USUAL = re.compile(
    r"[\t\n\r -~\xa0-\u06ff\u0900-\u097f\u0e00-\u0e7f\u2000-\u206f\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff00-\uffef]"
)
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
CREDENTIALS_HEAD = 32 << 10  # bytes looked through for who made them
# A text in CBOR, after the key or, in later versions, the first key inside: its length is in one byte, or in the next.
CLAIM_GENERATOR = re.compile(rb"claim_generator(?:_info)?[\x80-\xbf]*(?:dname)?(?:([\x60-\x77])|\x78(.))", re.DOTALL)
NO_XML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def read_exif(data: bytes, walk: FileWalk) -> bool:
    """Collect the texts of an EXIF block. True if its orientation swaps width and height."""
    header = TIFF.search(data, 0, 64)  # some writers put "Exif" before it where none is due, or twice; HEIF an offset
    if not header:
        return False
    data = data[header.start() :]
    order = "<" if data.startswith(b"II") else ">"
    is_turned = False
    left = 2 * len(data)  # bytes its values may have: they do not overlap, unless made to take long
    try:
        pending = [*struct.unpack_from(order + "I", data, 4)]
        for offset in pending:  # the first directory names the second
            (count,) = struct.unpack_from(order + "H", data, offset)
            for start in range(offset + 2, offset + 2 + 12 * min(count, MAX_ENTRIES), 12):
                tag, kind, length, value = struct.unpack_from(order + "HHII", data, start)
                if tag in TEXT_TAGS and kind in TEXT_KINDS:
                    if length <= 4:
                        value = start + 8
                    left -= length
                    if left < 0:
                        raise EOFError
                    _add_tag(tag, data[value : value + length], length, order, walk)
                elif tag == ORIENTATION:
                    is_turned = struct.unpack_from(order + "H", data, start + 8)[0] in (5, 6, 7, 8)
                elif tag == EXIF_DIRECTORY and len(pending) == 1:
                    pending.append(value)
    except (struct.error, EOFError):
        walk.warn("The EXIF data is damaged; what could be read was.")
    return is_turned


def _add_tag(tag: int, raw: bytes, length: int, order: str, walk: FileWalk) -> None:
    name = TEXT_TAGS[tag]
    if len(raw) < length:
        walk.warn("The EXIF data is damaged; what could be read was.")
    if tag == USER_COMMENT:
        text = decode_user_comment(raw, order)
    elif name.startswith("XP"):
        text = raw.decode("utf-16-le", "replace").rstrip("\0")
    else:
        text = decode(raw)
    if tag != MAKER_NOTE or _is_plain(text):  # a camera's is binary
        walk.add(name, text, f"EXIF {name}")


def decode_user_comment(raw: bytes, order: str) -> str:
    """The text of a UserComment. What its first 8 bytes declare is not believed: "UNICODE" stands before UTF-16 of either
    byte order, whatever that of the TIFF around it (`order`, "<" or ">"), and before UTF-8."""
    code = raw[:8].upper()
    if code in CHARACTER_CODES:
        raw = raw[8:]
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace").rstrip("\0")
    bare = raw.rstrip(b"\0")
    if b"\0" not in bare:
        text = decode(bare)
        is_marked = b"Steps:" in bare or bare.startswith(b"{")
        if code != b"UNICODE\0" or is_marked or (_is_plain(text) and text.encode() == bare):
            return text
    raw += b"\0" * (len(raw) % 2)  # it was stripped off
    first, second = raw[0::2].count(0), raw[1::2].count(0)
    if first + second > 0.3 * len(bare) / 2:  # Latin letters, whose zero byte comes first in big-endian
        is_big = first > second
    else:
        big, little = (len(USUAL.findall(raw.decode(f"utf-16-{order}e", "replace"))) for order in "bl")
        is_big = big > little if big != little else order == ">"
    return raw.decode("utf-16-be" if is_big else "utf-16-le", "replace").rstrip("\0")


def _is_plain(text: str) -> bool:
    return text.translate({9: None, 10: None, 13: None}).isprintable()


def read_xmp(data: bytes, walk: FileWalk) -> None:
    """Collect the properties of an XMP block: attributes and elements of its rdf:Description."""
    if b"<!DOCTYPE" in data:  # it could define entities that expand without end; XMP has none
        return
    text = decode(data).strip()
    try:
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError:
            root = ElementTree.fromstring(NO_XML.sub("", text))
    except ElementTree.ParseError:
        walk.warn("The XMP data is damaged and was not read.")
        return
    # Only what stands directly in each other is looked at, so that deep nesting costs nothing.
    document = root if root.tag == RDF + "RDF" else root.find(f"{RDF}RDF")
    for description in () if document is None else document.findall(f"{RDF}Description"):
        properties = list(description.attrib.items())
        properties += [(child.tag, _property_text(child)) for child in description]
        for tag, value in properties:
            name = tag.rpartition("}")[2]
            walk.add(name, value, f"XMP {name}")


def _property_text(element: ElementTree.Element) -> str:
    """Of several languages (rdf:Alt) the first, of a list (rdf:Seq, rdf:Bag) all, a line each."""
    for kind in ("Alt", "Seq", "Bag"):
        items = element.findall(f"{RDF}{kind}/{RDF}li")
        if items:
            texts = ["".join(item.itertext()).strip() for item in items]
            return texts[0] if kind == "Alt" else "\n".join(texts)
    return "".join(element.itertext()).strip()


def read_credentials(start: int, length: int, where: str, walk: FileWalk) -> None:
    """Note that a file has C2PA content credentials, and of what program. They are signed and binary, and have no prompt, but
    are often all that a hosted generator leaves in a file."""
    if any(field.name == "C2PA" for field in walk.fields):
        return  # the next part of the same
    data = walk.read_text(start, min(length, CREDENTIALS_HEAD))
    programs = []
    for found in CLAIM_GENERATOR.finditer(data):
        size = found[1][0] - 0x60 if found[1] else found[2][0]
        programs.append(decode(data[found.end() : found.end() + size]))
    made_by = f" of {', '.join(dict.fromkeys(programs))}" if programs else ""
    walk.add("C2PA", f"content credentials{made_by}, {length:,} bytes", where)
