"""Decodes pictures' files so that nothing in them can start a program, run for ever or fill the memory."""

import io
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from PIL import TiffImagePlugin as tiff

from . import formats
from .filenames import readable

SHORTEST_SIDE = 64  # pixels
LARGEST_AREA = 20_000_000  # pixels
LONGEST_ASPECT = 16  # longer side to shorter: sides are rounded up to 64, so longer pictures would grow out of hand
LARGEST_FILE = 2**30  # bytes: more than the largest area takes in any format

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")  # none of which starts another program
NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}  # how libtiff returns these
SECONDS = 10  # of processor time for one file; the largest honest ones take 2
BLOCK = 1024  # bytes that a decoder gets at once: up to a hundred nearly empty scans of a JPEG
SPARE = 2**26  # bytes that may be read beyond four times a file
MOST_PIECES = 100_000  # segments and stray bytes of a JPEG before its pixels; nearly empty chunks of a PNG
MOST_STRIPS = 200_000  # or tiles, of a TIFF
MOST_MEMORY = 2**31  # bytes that decoding an AVIF or HEIC picture may take; the largest honest ones take 2**28
LARGEST_NOTE = 2**16  # bytes of EXIF or XMP: as much as a JPEG's segment holds


@dataclass(frozen=True, eq=False)
class Decoded:
    """The first picture of a file as it is stored: not turned, its colours and transparency as they are."""

    picture: Image.Image
    """Loaded, in any mode."""
    values: np.ndarray | None
    """(H, W), or (H, W, 3 or 4) uint16: what the file holds, if `picture` cannot with 8 bits a channel."""


def decode(source: str | Path) -> Decoded:
    """The picture in a file. Raises `ValueError` with a sentence that names the file, but no folder.

    Refuses files in formats other than `FORMATS`, AVIF and HEIC, whatever their name, and, before any pixel is decoded,
    pictures of more than `LARGEST_AREA` pixels.
    """
    path = Path(source)
    name = harmless(path.name)
    with explained(name):
        data = _content(path)
        ending = path.suffix[1:]
        end = time.thread_time() + SECONDS
        if formats.is_like_video(data):
            data = _converted(data) or data
        if data.startswith(tuple(tiff.PREFIXES)):
            _check_tiff(data, end, name, ending)
        try:
            picture = _opened(data := _bare(data, end), end)
        except UnidentifiedImageError:
            what = formats.described(data, ending) or f"not a picture in a format that can be read: {formats.READ} can"
            raise _Refused(f"{name} is {what}") from None
        return _loaded(picture, data, end)


def harmless(name: str) -> str:
    """A file's name, or what a library says about it, made readable and short enough for a sentence."""
    shown = readable(name) or "the file"
    return shown if len(shown) <= 60 else f"{shown[:40]}…{shown[-19:]}"


def check_size(size: tuple[int, int]) -> None:
    """Raises `ValueError` for a picture of (width, height) that is too small, too large, or too long and narrow."""
    if min(size) < SHORTEST_SIDE:
        raise _Refused(_limits("this one has {} x {}".format(*size)))
    _check_area(size)
    if max(size) > LONGEST_ASPECT * min(size):
        limit = f"the longer side of a picture may be at most {LONGEST_ASPECT} times the shorter"
        raise _Refused(f"{limit}: this one has {size[0]} x {size[1]}")


def _check_area(size: tuple[int, int]) -> None:
    if size[0] * size[1] > LARGEST_AREA:
        raise _Refused(_limits("this one has {} x {}".format(*size)))


def _limits(what: str) -> str:
    limits = f"at least {SHORTEST_SIDE} pixels a side and at most {LARGEST_AREA / 1e6:.0f} million in all"
    return f"a picture needs {limits}: {what}"


class _Refused(ValueError):
    """Its message is a complete sentence."""


class _Exceeded(Exception):
    """A file takes more work than is allowed."""


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns anything that Pillow raises about a file into a `ValueError`."""
    try:
        yield
    except _Refused:
        raise
    except _Exceeded as error:
        raise ValueError(f"{name} takes too long to read: save it again as JPEG or PNG") from error
    except Image.DecompressionBombError as error:
        raise ValueError(_limits("this one has far more")) from error
    except Exception as error:
        reason = getattr(error, "strerror", None)  # from the system; otherwise from the library
        what = harmless(str(error) or type(error).__name__)
        reason = reason or f"it is damaged or of a rare kind ({what}); save it again as JPEG or PNG"
        raise ValueError(f"{name} cannot be read: {reason}") from error


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if not path.is_file():  # reading a pipe or a device might never end
        raise _Refused(f"{harmless(path.name)} is {'a folder' if path.is_dir() else 'a device'}, not a file")
    if not size:
        raise _Refused(f"{harmless(path.name)} is empty")
    if size > LARGEST_FILE:
        raise _Refused(f"{harmless(path.name)} has {size / 2**30:.1f} GB: a picture file may have at most 1 GB")
    return path.read_bytes()


class _Rationed(io.BytesIO):
    """A file's bytes, which a decoder can read until the `end`, but not over and over again.

    `end` is in processor time of this thread, so that a busy machine does not refuse what an idle one accepts.
    """

    def __init__(self, data: bytes, end: float) -> None:
        super().__init__(data)
        self.end, self.left = end, 4 * len(data) + SPARE

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.left -= len(data)
        if self.left < 0 or time.thread_time() > self.end:
            raise _Exceeded
        return data


def _opened(data: bytes, end: float) -> Image.Image:
    picture = Image.open(_Rationed(data, end), formats=FORMATS)
    _check_area(picture.size)
    picture.decodermaxblock = BLOCK  # between blocks the decoder returns, and is stopped if its time is up
    return picture


def _loaded(picture: Image.Image, data: bytes, end: float) -> Decoded:
    for key, most in (("exif", LARGEST_NOTE), ("Raw profile type exif", 2 * LARGEST_NOTE)):  # which is hexadecimal
        if len(picture.info.get(key) or "") > most:  # a megabyte's entries can ask for a terabyte
            del picture.info[key]
    tags = picture.tag_v2 if picture.format == "TIFF" else {}
    args = picture.tile[0].args if picture.tile else ""
    raw = str(args if isinstance(args, str) else args[0])
    kind, _, order = raw.partition(";16")
    if kind in ("RGB", "RGBA", "RGBX", "RGBa", "LA") and order:  # of these, Pillow keeps only the high bytes
        return _deep(picture, data, end, kind, order)
    if raw in NATIVE and picture.use_load_libtiff:
        _decode_as(picture, NATIVE[raw])
    picture.load()
    if raw == "I;32N":  # TIFF's unsigned numbers
        return Decoded(picture, np.asarray(picture).view(np.uint32))
    if raw == "L" and tags.get(tiff.SAMPLEFORMAT) == (2,):  # and its signed ones of 8 bits
        return Decoded(picture, np.asarray(picture).view(np.int8))
    if not picture.mode.startswith(("I", "F")):
        return Decoded(picture, None)
    values = np.asarray(picture)
    if raw.startswith("I;16") and tags.get(tiff.PHOTOMETRIC_INTERPRETATION) == 0:  # white is 0
        values = values.max() - values
    return Decoded(picture, values)


def _decode_as(picture: Image.Image, raw: str) -> None:
    picture.tile = [t._replace(args=raw if isinstance(t.args, str) else (raw, *t.args[1:])) for t in picture.tile]


def _deep(picture: Image.Image, data: bytes, end: float, kind: str, order: str) -> Decoded:
    """Channels of 16 bits: first their high bytes, then, read in the other byte order, their low bytes."""
    low, little = _opened(data, end), sys.byteorder == "little"
    if kind == "LA":
        _decode_as(picture, "RGBA")  # the high and low bytes of grey, then of alpha
        grey, grey_low, alpha, alpha_low = np.moveaxis(np.asarray(picture, np.uint16), 2, 0)
        return Decoded(low, np.stack([grey << 8 | grey_low] * 3 + [alpha << 8 | alpha_low], 2))
    _decode_as(picture, f"{kind.upper()};16{order}")
    _decode_as(low, f"{kind.upper()};16{'B' if order == 'L' or order == 'N' and little else 'L'}")
    values = np.asarray(picture, np.uint16) << 8 | np.asarray(low)
    if kind == "RGBa":  # colours are multiplied by alpha, which shows their range
        alpha = values[..., 3:]
        whole = 65535 if alpha.max() > 32767 else alpha.max()
        values[..., :3] = (values[..., :3] * (whole / np.maximum(alpha, 1))).clip(0, 65535)
    return Decoded(picture, values)


def _check_tiff(data: bytes, end: float, name: str, ending: str) -> None:
    """Refuses a TIFF that would take too much work: its decoder gets the whole file at once and cannot be stopped."""
    file = _Rationed(data, end)
    head = file.read(8)
    big = head[2] == 43
    tags = tiff.ImageFileDirectory_v2(head + (file.read(8) if big else b""))
    start, entry = (8, 20) if big else (2, 12)  # bytes
    count = int.from_bytes(data[tags.next :][:start], "little" if head.startswith(b"I") else "big")
    places = range(tags.next + start, tags.next + start + entry * min(count, 2**16 + 1), entry)
    if len({data[place : place + 2] for place in places}) < count:  # of two, Pillow takes the last, libtiff the first
        raise _Refused(f"{name} is a TIFF picture, {formats.BROKEN}")
    file.seek(tags.next)
    tags.load(file)
    if formats.is_raw(tags, data, ending):
        raise _Refused(f"{name} is {', '.join(formats.RAW_PICTURE)}")
    bits = max(tags.get(tiff.BITSPERSAMPLE, (1,)))
    if bits > 32 or bits == 16 and tags.get(tiff.PLANAR_CONFIGURATION) == 2:
        rare = "values of 64 bits" if bits > 32 else "16-bit colours in separate planes"
        raise _Refused(f"{name} is a TIFF picture with {rare}, which cannot be read here: save it as 16-bit PNG")
    tile = tags.get(tiff.TILEWIDTH, 1) * tags.get(tiff.TILELENGTH, 1)  # pixels, in memory whatever the picture's size
    sizes = tags.get(tiff.TILEBYTECOUNTS, tags.get(tiff.STRIPBYTECOUNTS, ()))
    offsets = tags.get(tiff.TILEOFFSETS, tags.get(tiff.STRIPOFFSETS, ()))
    if tile > 2 * LARGEST_AREA or max(len(sizes), len(offsets)) > MOST_STRIPS or sum(map(abs, sizes)) > 2 * len(data):
        raise _Exceeded


def _converted(data: bytes) -> bytes | None:
    """An AVIF or HEIC picture as PNG, made by a process that can be killed; None if it cannot read the picture."""
    folders = [folder for folder in sys.path if folder]
    limits = map(str, (SECONDS, MOST_MEMORY, LARGEST_AREA))
    command = [sys.executable, "-I", Path(__file__).with_name("converting.py"), *limits, *folders]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=6 * SECONDS)
    except subprocess.TimeoutExpired as error:
        raise _Exceeded from error
    if done.returncode < 0:  # ended by the system
        raise _Exceeded
    size, _, png = done.stdout.partition(b"\n")
    if size:
        _check_area(tuple(map(int, size.split())))
    return png or None


# --- Files reduced to what is needed: decoders also read their other parts, whose number and size have no limit


def _bare(data: bytes, end: float) -> bytes:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _bare_png(_Rationed(data, end))
    if data.startswith(b"\xff\xd8\xff"):
        return _bare_jpeg(_Rationed(data, end))
    return data


def _bare_png(file: _Rationed) -> bytes:
    """Without animation, text and damaged side information; an unusable profile becomes an empty one."""
    kept, count = bytearray(file.read(8)), 0
    while len(head := file.read(8)) == 8:
        kind, length = head[4:], int.from_bytes(head[:4])
        body = file.read(length + 4)  # with its checksum
        if (count := count + (length < 16)) > MOST_PIECES:
            raise _Exceeded
        sound = kind[:1].isupper() or zlib.crc32(kind + body[:-4]).to_bytes(4) == body[-4:]
        if kind == b"iCCP" and not (sound and _unpacks(body[:-4])):
            body = b"-\0\0" + zlib.compress(b"")
            kept += len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)
        elif kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"iCCP") or sound and _turns_png(kind, body):
            kept += head + body
        if kind == b"IEND":
            break
    return bytes(kept)


def _turns_png(kind: bytes, body: bytes) -> bool:
    """Whether a chunk may tell how the picture is turned, or which colour is transparent."""
    texts = b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"
    return kind == b"tRNS" or len(body) <= LARGEST_NOTE and (kind == b"eXIf" or body.startswith(texts))


def _unpacks(profile: bytes) -> bool:
    packed = profile.partition(b"\0")[2]
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed[1:], PngImagePlugin.MAX_TEXT_CHUNK)
    except zlib.error:
        return False
    return packed[:1] == b"\0" and not unpacking.unconsumed_tail


def _bare_jpeg(file: _Rationed) -> bytes:
    """Without comments, further pictures and previews; only the first segments of EXIF and XMP are kept."""
    kept, notes, count = bytearray(file.read(2)), set(), 0
    while mark := file.read(1):
        if (count := count + 1) > MOST_PIECES:
            raise _Exceeded
        if mark != b"\xff":  # decoders skip what does not belong there
            continue
        if (code := file.read(1)) == b"\xff":
            file.seek(-1, io.SEEK_CUR)
            continue
        if code == b"\xda":  # the pixels begin
            return bytes(kept + mark + code + file.read())
        if not code or code in b"\x00\x01" or b"\xd0" <= code <= b"\xd9":  # these stand alone
            continue
        size = file.read(2)
        body = file.read(max(0, int.from_bytes(size) - 2))
        note = next((note for note in (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0") if body.startswith(note)), None)
        if (
            b"\xc0" <= code <= b"\xcf"
            or code in b"\xdb\xdd\xe0\xee"  # tables, JFIF, Adobe's colour transform
            or code == b"\xe2" and body.startswith(b"ICC_PROFILE\0")
            or code == b"\xe1" and note and note not in notes
        ):
            kept += mark + code + size + body
        notes.add(note)
    return bytes(kept)
