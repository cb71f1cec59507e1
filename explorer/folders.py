"""The page writes only into folders of this user: below the user's cache or, where that is not possible, in a
temporary folder of this process.

Nothing in them is needed for long: what is older than a day is removed when the page starts.
"""

import atexit
import os
import shutil
import tempfile
import time
from pathlib import Path

from platformdirs import user_cache_path

KEPT_HOURS = 24


def writable(folder: Path) -> Path:
    """`folder`, made if missing, or a temporary one where it cannot be written to."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder.resolve()
    except OSError:
        temporary = Path(tempfile.mkdtemp(prefix="emerdiff-")).resolve()
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return temporary


def sweep(folder: Path, *, hours: float = KEPT_HOURS) -> None:
    """Remove what was last changed over `hours` ago: a server that was killed leaves such things."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        try:
            if time.time() - entry.stat().st_mtime > 3600 * hours:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        except OSError:  # another server of this user is sweeping too, or still uses it
            continue


def new_folder() -> Path:
    """A new folder for files that an event returns. gradio serves them from there and removes them after a day."""
    UPLOADS.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=UPLOADS))


ROOT = writable(Path(os.environ.get("EMERDIFF_CACHE") or user_cache_path("emerdiff", appauthor=False)))
UPLOADS = Path(os.environ.setdefault("GRADIO_TEMP_DIR", str(ROOT / "uploads"))).resolve()
"""gradio's folder. Its own choice, `gradio` in the machine's temporary folder, belongs to the first user to start."""
