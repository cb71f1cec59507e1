"""Safe file names from any text, distinct ones for many pictures, and any text as one printable line."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from itertools import count
from unicodedata import category, normalize

LONGEST = 80  # characters: a path that contains two such names stays below the 260 of Windows
LONGEST_BYTES = 200  # of UTF-8: file systems allow 255, with what is appended
NAMELESS = "picture"
INVISIBLE = ("Cc", "Cf", "Cs")  # Unicode's categories of controls, formats and surrogates
JOINERS = "\u200c\u200d"  # invisible, but Persian and many emoji need them
FORBIDDEN = re.compile(r'[<>:"|?*]')  # on Windows
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)  # there too


def readable(text: str) -> str:
    """The readable part of a text, on one line and in NFC: no controls, direction marks or lone surrogates.

    White space of any kind and length becomes one space, and is removed at both ends.
    """
    kept = (" " if c.isspace() else c for c in text if c.isspace() or c in JOINERS or category(c) not in INVISIBLE)
    return " ".join(normalize("NFC", "".join(kept)).split()).strip(JOINERS + " ")


def safe_stem(name: str) -> str:
    """A file's name without folders and ending, in a form that every system, shell and zip archive can handle.

    Letters of all scripts are kept. Characters that Windows forbids become "_", and names that it reserves get one in
    front. The first character is not a dot, space, "-" or "~", the last not a dot or space. Names of more than 80
    characters or 200 bytes of UTF-8 are shortened and end with a digest of the whole. If nothing is left, the stem is
    "picture". A safe stem stays as it is, except for anything that looks like an ending.
    """
    name = readable(re.split(r"[/\\]", name.rstrip("/\\"))[-1])
    stem = FORBIDDEN.sub("_", re.sub(r"\.[^. ]*$", "", name)).lstrip(" .-~").rstrip(" .")
    if not stem.strip("_"):
        return NAMELESS
    if RESERVED.match(stem):
        stem = f"_{stem}"
    if len(stem) > LONGEST or len(stem.encode()) > LONGEST_BYTES:
        tail = "-" + hashlib.sha256(stem.encode()).hexdigest()[:8]
        start = stem[: LONGEST - len(tail)].encode()[: LONGEST_BYTES - len(tail)].decode(errors="ignore")
        stem = start.rstrip(" ." + JOINERS) + tail
    return stem


def distinct_stems(names: Sequence[str]) -> list[str]:
    """A safe stem for each file's name; they are distinct even where upper and lower case count as the same.

    a.png becomes `a`, or `a_png` if there is also a.jpg; stems that are still not distinct get a number in front.
    """
    stems = [safe_stem(name) for name in names]
    often = Counter(map(str.casefold, stems))
    stems = [
        stem if often[stem.casefold()] == 1 else safe_stem(name.replace(".", "_"))
        for stem, name in zip(stems, names, strict=True)
    ]
    often = Counter(map(str.casefold, stems))
    taken = set(often)
    for i, stem in enumerate(stems):
        if often[stem.casefold()] > 1:
            numbered = (f"{n:03}_{stem}" for n in count(i, len(stems)))
            stems[i] = next(new for new in numbered if new.casefold() not in taken)
            taken.add(stems[i].casefold())
    return stems


def printable(text: str) -> str:
    """Text as one line without control sequences: invisible characters are escaped as in Python."""
    return "".join(c if c.isprintable() or c in JOINERS else c.encode("unicode_escape").decode() for c in text)
