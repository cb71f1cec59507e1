"""Says what a file that cannot be read as a picture is, and what to do about it."""

from collections.abc import Mapping

GIT_LFS_POINTER = b"version https://git-lfs"
"""The beginning of the small text that takes a file's place in a clone made without Git LFS."""

READ = "JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, AVIF and HEIC"

PICTURE = "which cannot be read here: save it as JPEG or PNG"
BROKEN = "but it is damaged or of a rare kind and cannot be read: save it again as JPEG or PNG"
VIDEO = "not a picture: save one of its frames as JPEG or PNG"
PACKED = "not a picture: unpack it and take a picture from it"
PAPER = "not a picture: save the page as PNG"
DATA = "not a picture: save what it shows as PNG"
RAW_PICTURE = "a raw photograph", "which cannot be read here: develop it and save it as JPEG or PNG"

MAGIC = (  # offset, bytes found there, what the file is, what to do
    (0, b"8BPS", "a Photoshop document", PICTURE),
    (0, b"gimp xcf", "a GIMP document", PICTURE),
    (0, b"\0\0\0\x0cJXL \r\n", "a JPEG XL picture", PICTURE),
    (0, b"\xff\x0a", "a JPEG XL picture", PICTURE),
    (0, b"\0\0\0\x0cjP  \r\n", "a JPEG 2000 picture", PICTURE),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture", PICTURE),
    (0, b"\xff\xd8\xff\xf7", "a JPEG-LS picture", PICTURE),
    (0, b"II\xbc\x01", "a JPEG XR picture", PICTURE),
    (0, b"BPG\xfb", "a BPG picture", PICTURE),
    (0, b"FLIF", "a FLIF picture", PICTURE),
    (0, b"qoif", "a QOI picture", PICTURE),
    (0, b"DDS ", "a DDS picture", PICTURE),
    (0, b"\xabKTX ", "a KTX picture", PICTURE),
    (0, b"v/1\x01", "an OpenEXR picture", PICTURE),
    (0, b"#?RADIANCE", "a Radiance HDR picture", PICTURE),
    (0, b"#?RGBE", "a Radiance HDR picture", PICTURE),
    (0, b"SIMPLE  =", "a FITS picture", PICTURE),
    (128, b"DICM", "a DICOM picture", PICTURE),
    (0, b"\0\0\1\0", "an ICO icon", PICTURE),
    (0, b"\0\0\2\0", "a CUR cursor", PICTURE),
    (0, b"icns", "an ICNS icon", PICTURE),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster picture", PICTURE),
    (0, b"\x01\xda\x00", "an SGI picture", PICTURE),
    (0, b"\x01\xda\x01", "an SGI picture", PICTURE),
    (0, b"P7\n", "a PAM picture", PICTURE),
    (0, b"PF\n", "a PFM picture in colour", PICTURE),
    (0, b"\x0a\5\1", "a PCX picture", PICTURE),
    (4, b"\x11\xaf", "an FLI animation", PICTURE),
    (4, b"\x12\xaf", "an FLC animation", PICTURE),
    (0, b"/* XPM */", "an XPM picture", PICTURE),
    (0, b"AT&TFORM", "a DjVu document", PAPER),
    (0, b"\x8aMNG", "an MNG animation", PICTURE),
    (0, b"\x8bJNG", "a JNG picture", PICTURE),
    (0, b"\xd7\xcd\xc6\x9a", "a WMF drawing", PICTURE),
    (40, b" EMF", "an EMF drawing", PICTURE),
    (0, b"%!PS", "a PostScript document", PAPER),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript document", PAPER),
    (0, b"%PDF", "a PDF document", PAPER),
    (0, b"IIRO", *RAW_PICTURE),
    (0, b"IIRS", *RAW_PICTURE),
    (0, b"MMOR", *RAW_PICTURE),
    (0, b"IIU\0", *RAW_PICTURE),
    (0, b"FUJIFILMCCD-RAW", *RAW_PICTURE),
    (0, b"FOVb", *RAW_PICTURE),
    (0, b"\0MRM", *RAW_PICTURE),
    (6, b"HEAPCCDR", *RAW_PICTURE),
    (0, b"\x1aE\xdf\xa3", "a video", VIDEO),
    (8, b"AVI ", "a video", VIDEO),
    (0, b"\0\0\1\xba", "a video", VIDEO),
    (0, b"\0\0\1\xb3", "a video", VIDEO),
    (0, b"FLV\1", "a video", VIDEO),
    (0, b"\x30\x26\xb2\x75", "a video", VIDEO),
    (4, b"moov", "a video", VIDEO),
    (4, b"mdat", "a video", VIDEO),
    (4, b"wide", "a video", VIDEO),
    *((0, kind + b"WS", "a Flash file", DATA) for kind in (b"F", b"C", b"Z")),
    (8, b"WAVE", "an audio file", "not a picture"),
    (0, b"ID3", "an audio file", "not a picture"),
    (0, b"OggS", "an audio or video file", "not a picture"),
    (0, b"fLaC", "an audio file", "not a picture"),
    (0, b"PK\3\4", "a ZIP archive or a document stored as one", PACKED),
    (0, b"PK\5\6", "an empty ZIP archive", "not a picture"),
    (0, b"Rar!", "a RAR archive", PACKED),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", PACKED),
    (0, b"\x1f\x8b", "a gzip file", PACKED),
    (0, b"BZh", "a bzip2 file", PACKED),
    (0, b"\xfd7zXZ\0", "an xz file", PACKED),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", PACKED),
    (257, b"ustar", "a tar archive", PACKED),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document", DATA),
    (0, b"{\\rtf", "a text document", DATA),
    (0, b"\x93NUMPY", "a NumPy array", "not a picture: load it and pass the array itself, or save it as PNG"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", DATA),
    (0, b"CDF\1", "a NetCDF file", DATA),
    (0, b"CDF\2", "a NetCDF file", DATA),
    (0, b"MATLAB 5.0", "a MATLAB file", DATA),
    (344, b"n+1\0", "a NIfTI scan", DATA),
    (0, b"PAR1", "a Parquet file", DATA),
    (0, b"glTF", "a three-dimensional model", DATA),
    (0, b"\x7fELF", "a program", "not a picture"),
    (0, b"MZ", "a program", "not a picture"),
    (0, b"\0\5\x16\7", "a macOS metadata file", "not the picture itself: use the file of the same name without ._"),
    (0, b"bplist00", "a macOS property list", "not a picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture", BROKEN),
    (0, b"\x89PNG", "a PNG picture", BROKEN),
    (0, b"GIF8", "a GIF picture", BROKEN),
    (0, b"II*\0", "a TIFF picture", BROKEN),
    (0, b"MM\0*", "a TIFF picture", BROKEN),
    (0, b"II+\0", "a TIFF picture", BROKEN),
    (0, b"MM\0+", "a TIFF picture", BROKEN),
    (8, b"WEBP", "a WebP picture", BROKEN),
    (0, b"BM", "a BMP picture", BROKEN),
    (0, GIT_LFS_POINTER, "a Git LFS pointer", "not the picture itself: fetch it with `git lfs pull`"),
)
AVIF, HEIC = ("an AVIF picture", PICTURE), ("a HEIC picture", PICTURE)
BRANDS = {  # of the container format that these pictures share with videos
    **dict.fromkeys((b"avif", b"avis"), AVIF),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), HEIC),
    **dict.fromkeys((b"mif1", b"mif2", b"msf1"), HEIC),  # unless it says AVIF as well
    b"jxl ": ("a JPEG XL picture", PICTURE),
    b"jp2 ": ("a JPEG 2000 picture", PICTURE),
    b"crx ": RAW_PICTURE,
}
RAW_ENDINGS = (
    *("3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "iiq", "kdc", "mef", "mos", "mrw", "nef", "nrw", "orf"),
    *("pef", "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw", "x3f"),
)


def described(data: bytes, ending: str) -> str | None:
    """What a file in none of the readable formats is, and what to do about it; None if that is not known.

    `data` are its bytes; `ending` is that of its name, without the dot.
    """
    if data[-18:-2] == b"TRUEVISION-XFILE" or ending.lower() == "tga":  # these begin in no particular way
        known = "a TGA picture", PICTURE
    else:
        known = _container(data) or _magic(data) or _text(data)
    if not known and ending.lower() in RAW_ENDINGS:
        known = RAW_PICTURE
    return known and ", ".join(known)


def is_like_video(data: bytes) -> bool:
    """Whether reading this picture takes a video decoder."""
    return _container(data) in (AVIF, HEIC)


def is_raw(tags: Mapping[int, object], data: bytes, ending: str) -> bool:
    """Whether a TIFF is a raw photograph, of which only a small preview would be read."""
    preview = int(tags.get(254, 0)) & 1 and 330 in tags  # the picture itself is in a subdirectory
    return bool(data[8:10] == b"CR" or 50706 in tags or preview or ending.lower() in RAW_ENDINGS)


def _container(data: bytes) -> tuple[str, str] | None:
    if data[4:8] != b"ftyp":
        return None
    brands = [data[8:12], *(data[place : place + 4] for place in range(16, min(int.from_bytes(data[:4]), 256), 4))]
    known = [BRANDS[brand] for brand in brands if brand in BRANDS]
    return next((kind for kind in known if kind == AVIF), known[0]) if known else ("a video", VIDEO)


def _magic(data: bytes) -> tuple[str, str] | None:
    return next(((what, todo) for place, magic, what, todo in MAGIC if data.startswith(magic, place)), None)


def _text(data: bytes) -> tuple[str, str] | None:
    start = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in start:
        return "an SVG drawing", PICTURE
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page", "not a picture: save the picture itself"
    if data and not data.strip(b"\0"):
        return "a file that contains only zeros", "not a picture: download or copy it again"
    text = start.decode("utf-8", "ignore")  # a character may be cut at the end
    if text and len(text.encode()) > len(start) - 4 and all(c.isprintable() or c.isspace() for c in text):
        return "a text file", "not a picture"
    return None
