"""AVIF, HEIF and JPEG XL: files of boxes (ISO/IEC 14496-12), each a length, a kind and a content that may be boxes again.

In AVIF and HEIF (ISO/IEC 23008-12) the box `meta` lists items, where each lies, and their properties: the picture is one item,
EXIF and XMP are others. In JPEG XL (ISO/IEC 18181-2) they are boxes of their own, which Brotli may have made smaller.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import brotli

from dpo.metadata.exif import read_credentials, read_exif, read_xmp
from dpo.metadata.filewalk import MAX_PARTS, FileWalk

AVIF_BRANDS = {b"avif", b"avis"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1"}
JXL_BOX, JXL_START = b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a"
C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
MAX_TEXT_ITEMS, MAX_EXTENTS = 16, 1000  # items of text in a file, pieces of one item
JXL_HEADER = 32  # bytes that are sure to hold size and orientation
JXL_RATIOS = ((1, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height, by number; 0 is none
INFLATE_BLOCK = 64 << 10  # bytes

Reader = Callable[[int, int], bytes]  # (start, length) -> bytes, or EOFError


def _boxes(read: Reader, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of the content, end of it) of each box between two places. The last may claim to end after `end`."""
    for _ in range(MAX_PARTS):
        if end - start < 8:
            return
        length, kind = struct.unpack(">I4s", read(start, 8))
        header = 8
        if length == 1:
            (length,) = struct.unpack(">Q", read(start + 8, 8))
            header = 16
        elif length == 0:
            length = end - start
        if length < header:  # no box: something was put after the last
            return
        yield kind, start + header, start + length
        start += length


# --- AVIF and HEIF


def walk_heif(walk: FileWalk) -> None:
    """Leaves `walk.format` empty if it is another kind of file of boxes: a video."""
    meta = None
    for kind, start, end in _boxes(walk.read, 0, walk.size):
        if kind == b"ftyp":
            data = walk.read_text(start, end - start)
            brands = {data[:4], *(data[place : place + 4] for place in range(8, len(data), 4))}
            walk.format = "AVIF" if brands & AVIF_BRANDS else "HEIF" if brands & HEIF_BRANDS else ""
            if not walk.format:
                return
        elif kind == b"meta" and meta is None:
            meta = walk.read_text(start + 4, end - start - 4)  # after version and flags
        elif kind == b"mdat" and end > walk.size:
            raise EOFError
        elif kind == b"uuid" and walk.read(start, 16) == C2PA_UUID:
            read_credentials(start, end - start, f"{walk.format} uuid", walk)
        elif kind == b"uuid" and walk.read(start, 16) == XMP_UUID:
            read_xmp(walk.read_text(start + 16, end - start - 16), walk)
    if meta:
        _read_meta(meta, walk)


def _read_meta(meta: bytes, walk: FileWalk) -> None:
    found = {kind: (start, end) for kind, start, end in _boxes(_reader(meta), 0, len(meta))}

    def content(kind: bytes) -> bytes:
        start, end = found.get(kind, (0, 0))
        return meta[start:end]

    primary = int.from_bytes(content(b"pitm")[4:])
    kinds = _item_kinds(content(b"iinf"))
    texts = [item for item, kind in kinds.items() if kind in (b"Exif", b"XMP")][:MAX_TEXT_ITEMS]
    _read_properties(content(b"iprp"), primary, walk)
    places = _item_places(content(b"iloc"), {primary, *texts})
    inside = content(b"idat")
    for item in texts:
        data = b"".join(
            inside[start : start + length] if is_inside else walk.read_text(start, length or walk.size - start)
            for is_inside, start, length in places.get(item, [])
        )
        (read_exif if kinds[item] == b"Exif" else read_xmp)(data, walk)  # EXIF's orientation does not count: "irot" does
    for is_inside, start, length in places.get(primary, []):
        if not is_inside and start + length > walk.size:
            raise EOFError


def _item_kinds(iinf: bytes) -> dict[int, bytes]:
    """{item: kind} of every item; the kind is b"XMP" for XMP, which is kept as a "mime" item."""
    kinds = {}
    for kind, start, end in _boxes(_reader(iinf), 6 if iinf[:1] == b"\0" else 8, len(iinf)):
        version = iinf[start]
        if kind == b"infe" and version >= 2:
            place = start + (6 if version == 2 else 8)
            item = int.from_bytes(iinf[start + 4 : place])
            kinds[item] = iinf[place + 2 : place + 6]
            if kinds[item] == b"mime" and b"\0application/rdf+xml" in iinf[place + 6 : end]:  # after the item's name
                kinds[item] = b"XMP"
    return kinds


def _item_places(iloc: bytes, wanted: set[int]) -> dict[int, list[tuple[bool, int, int]]]:
    """{item: [(whether it is inside the box idat, start, length), ...]} of the wanted items."""
    places = {}
    version, sizes, more_sizes = struct.unpack_from(">B3xBB", iloc)
    offset_size, length_size, base_size = sizes >> 4, sizes & 15, more_sizes >> 4
    index_size = more_sizes & 15 if version in (1, 2) else 0
    wide = 4 if version == 2 else 2  # bytes of an item's number and of the number of items
    extent = index_size + offset_size + length_size
    count = int.from_bytes(iloc[6 : 6 + wide])
    place = 6 + wide
    for _ in range(count):
        item = int.from_bytes(iloc[place : place + wide])
        place += wide
        method = 0
        if version in (1, 2):
            (method,) = struct.unpack_from(">H", iloc, place)
            place += 2
        base = int.from_bytes(iloc[place + 2 : place + 2 + base_size])  # after the number of the file it is in: this one
        place += 2 + base_size
        (extents,) = struct.unpack_from(">H", iloc, place)
        place += 2
        if item in wanted and method & 15 < 2:
            places[item] = []
            for number in range(min(extents, MAX_EXTENTS)):
                start = place + number * extent + index_size
                middle, end = start + offset_size, start + offset_size + length_size
                length = int.from_bytes(iloc[middle:end])
                places[item].append((method & 15 == 1, base + int.from_bytes(iloc[start:middle]), length))
        place += extents * extent
    return places


def _read_properties(iprp: bytes, item: int, walk: FileWalk) -> None:
    """The size of an item, as its properties make it in their order. A grid of tiles is an item too: that of all of it."""
    read = _reader(iprp)
    properties: list[tuple[bytes, bytes]] = []
    for kind, start, end in _boxes(read, 0, len(iprp)):
        if kind == b"ipco":
            properties += [(inner, iprp[begin:stop]) for inner, begin, stop in _boxes(read, start, end)]
        elif kind == b"ipma":
            for index in _associations(iprp[start:end], item):
                name, data = properties[index - 1] if 0 < index <= len(properties) else (b"", b"")
                if name == b"ispe":
                    walk.picture = struct.unpack_from(">4xII", data)
                elif name == b"clap":  # the part to show, where an encoder made a picture larger to suit its blocks
                    width, width_parts, height, height_parts = struct.unpack_from(">4I", data)
                    walk.picture = (width // max(1, width_parts), height // max(1, height_parts))
                elif name == b"irot" and data[0] & 1:  # quarter turns
                    walk.picture = walk.picture[::-1]


def _associations(ipma: bytes, wanted: int) -> Iterator[int]:
    """The numbers of an item's properties, from 1."""
    version, flags, count = struct.unpack_from(">B3sI", ipma)
    wide, size = (4 if version else 2), (2 if flags[2] & 1 else 1)
    place = 8
    for _ in range(count):
        if place >= len(ipma):
            return
        item, length = int.from_bytes(ipma[place : place + wide]), ipma[place + wide]
        place += wide + 1
        if item == wanted:
            for start in range(place, place + length * size, size):
                yield int.from_bytes(ipma[start : start + size]) & (0x7FFF if size == 2 else 0x7F)
        place += length * size


def _reader(data: bytes) -> Reader:
    def read(start: int, length: int) -> bytes:
        return data[start : start + length]

    return read


# --- JPEG XL


def walk_jxl(walk: FileWalk) -> None:
    """A bare codestream, or boxes with one in one piece (jxlc) or several (jxlp)."""
    walk.format = "JPEG XL"
    codestream = walk.head if walk.head.startswith(JXL_START) else b""
    for kind, start, end in _boxes(walk.read, 0, 0 if codestream else walk.size):
        if kind in (b"jxlc", b"jxlp"):
            if end > walk.size:
                raise EOFError
            start += 4 if kind == b"jxlp" else 0  # after the number of the piece
            if len(codestream) < JXL_HEADER:
                codestream += walk.read(start, min(JXL_HEADER, max(0, end - start)))
        elif kind in (b"Exif", b"xml "):
            _read_jxl_text(kind, walk.read_text(start, end - start), walk)
        elif kind == b"brob":
            kind = walk.read(start, 4)
            if kind in (b"Exif", b"xml "):
                _read_jxl_text(kind, _inflate(walk.read_text(start + 4, end - start - 4), walk), walk)
        elif kind == b"jumb":
            read_credentials(start, end - start, "JPEG XL jumb", walk)
    if codestream:
        _read_codestream(codestream, walk)


def _read_jxl_text(kind: bytes, data: bytes, walk: FileWalk) -> None:
    if kind == b"Exif":
        read_exif(data, walk)  # whose orientation does not count: the codestream has its own
    elif data:
        read_xmp(data, walk)


def _inflate(data: bytes, walk: FileWalk) -> bytes:
    stream, parts = brotli.Decompressor(), []
    try:
        while data or not stream.is_finished():
            part = stream.process(data, output_buffer_limit=min(INFLATE_BLOCK, walk.room + 1))
            if not walk.take(len(part)):
                walk.room = 0
                return b""
            if not part:
                break  # it ends too early: what there is may do
            data = b""
            parts.append(part)
    except brotli.error:
        walk.room -= min(walk.room, INFLATE_BLOCK)
        walk.warn("A compressed JPEG XL text is damaged; what could be read was.")
    return b"".join(parts)


def _read_codestream(data: bytes, walk: FileWalk) -> None:
    """Size and orientation from the first bits (lowest first) of a codestream, ISO/IEC 18181-1 Annex D."""
    if len(data) < 12:  # the smallest picture there is
        raise EOFError
    bits = int.from_bytes(data[2:JXL_HEADER], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & (1 << count) - 1
        bits >>= count
        return value

    def length(is_small: int) -> int:
        return 8 * (take(5) + 1) if is_small else take((9, 13, 18, 30)[take(2)]) + 1

    is_small = take(1)
    height = length(is_small)
    ratio = take(3)
    across, down = JXL_RATIOS[ratio]
    walk.picture = (height * across // down if ratio else length(is_small), height)
    is_default = take(1)
    if not is_default and take(1):
        walk.is_turned = take(3) + 1 > 4
