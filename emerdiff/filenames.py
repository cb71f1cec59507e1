"""Names of files: safe ones out of any text, distinct ones for many pictures; and any text as one line to print."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from itertools import count
from unicodedata import category, normalize

LONGEST = 80  # characters: a path with two such names in it stays under the 260 of Windows
LONGEST_BYTES = 200  # of UTF-8: file systems take 255, with what is appended
NAMELESS = "picture"
UNSEEN = ("Cc", "Cf", "Cs")  # Unicode's categories of controls, formats and surrogates
JOINERS = "\u200c\u200d"  # not seen, but Persian and many emoji are spelt with them
FORBIDDEN = re.compile(r'[<>:"|?*]')  # on Windows
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)  # there too


def readable(text: str) -> str:
    """What of a text can be read, on one line and in NFC: no controls, no marks of direction, no halves of characters.

    White space of any kind and length is one space; there is none at the ends.
    """
    kept = (" " if c.isspace() else c for c in text if c.isspace() or c in JOINERS or category(c) not in UNSEEN)
    return " ".join(normalize("NFC", "".join(kept)).split()).strip(JOINERS + " ")


def safe_stem(name: str) -> str:
    """A file's name without folders and ending, as any system can store it and any shell or zip can bear it.

    Letters of all scripts stay. What Windows forbids becomes "_", and its reserved names begin with one; no dot,
    space, "-" or "~" comes first and no dot or space last. At most 80 characters and 200 bytes of UTF-8: longer names
    are cut and end with a digest of the whole. "picture" where nothing is left. Safe stems stay as they are, but for
    what looks like an ending.
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
    """A safe stem for each file's name, distinct also where upper and lower case are not told apart.

    a.png is `a`; beside a.jpg it is `a_png`; what is still the same, or taken, gets a number in front.
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
    """Text as one line that no terminal obeys: what cannot be seen is written as Python escapes it."""
    return "".join(c if c.isprintable() or c in JOINERS else c.encode("unicode_escape").decode() for c in text)
