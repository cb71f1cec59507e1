"""A visitor's picture: its file, and what the page shows of it where a browser would show something else.

The page sends back what it shows, UPLOADS/KEY-shown/NAME.png, and that stands for the upload UPLOADS/KEY/NAME.
"""

import shutil
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from emerdiff.filenames import safe_stem

from .folders import UPLOADS, new_folder
from .seen import Seen

LARGEST_MEGABYTES = 30
SHOWN = "-shown"  # gradio's keys are hexadecimal
BY_BROWSERS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # formats that all of them show


def presentable(upload: str, picture: Seen) -> str | None:
    """A PNG of the picture as the network will see it; None where browsers show the upload so by themselves."""
    file = Path(upload).resolve()
    if file.parents[1] != UPLOADS or (_browsers_show(file) and not picture.notes):
        return None
    png = UPLOADS / f"{file.parent.name}{SHOWN}" / f"{file.name}.png"
    png.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    picture.shown.save(png, compress_level=1)
    return str(png)


def _browsers_show(file: Path) -> bool:
    try:
        with Image.open(file, formats=BY_BROWSERS) as picture:
            return picture.mode != "CMYK"  # in colours of their own
    except UnidentifiedImageError:
        return False


def original(path: str) -> str:
    """The upload behind what the page shows, or `path` itself."""
    file = Path(path).resolve()
    key = file.parent.name.removesuffix(SHOWN)
    return path if key == file.parent.name else str(UPLOADS / key / file.stem)


def from_link(kept: Path, name: str | None) -> Path:
    """A copy of a kept picture under its name, to be opened as an upload is."""
    return Path(shutil.copyfile(kept, new_folder() / f"{safe_stem(name or kept.name)}.png"))
