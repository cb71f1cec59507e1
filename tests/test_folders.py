"""Where the page writes, who else can, and what happens where nothing can be written."""

import ast
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import value_of
from PIL import Image

from emerdiff.miniature.scenes import draw_scene
from explorer import examples as example_store
from explorer import folders, links, runs
from explorer.examples import examples

ROOT = Path(__file__).parents[1]


def chosen(**environment) -> tuple[Path, Path]:
    """Root and gradio's folder, as a new process has them."""
    kept = {k: v for k, v in os.environ.items() if k not in ("EMERDIFF_CACHE", "GRADIO_TEMP_DIR", "XDG_CACHE_HOME")}
    code = "import os; from explorer import folders; print(folders.ROOT); print(os.environ['GRADIO_TEMP_DIR'])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    root, uploads = map(Path, done.stdout.split())
    return root, uploads


def test_each_user_of_a_machine_has_folders_of_their_own(tmp_path):
    seen = set()
    for user in ("ada", "bob"):
        home = tmp_path / user
        home.mkdir()
        root, uploads = chosen(HOME=str(home), LOCALAPPDATA=str(home))
        assert root.is_relative_to(home) and uploads.is_relative_to(root)
        assert root.stat().st_mode & 0o077 == 0 or os.name == "nt"  # nobody else reads there
        seen |= {root, uploads}
    assert len(seen) == 4


def test_where_the_users_cache_cannot_be_written_a_temporary_folder_serves_and_is_removed(tmp_path):
    (tmp_path / "file").touch()  # that a folder cannot be made in also root cannot change
    root, uploads = chosen(EMERDIFF_CACHE=str(tmp_path / "file" / "cache"), TMPDIR=str(tmp_path))
    assert root.parent == tmp_path and root.name.startswith("emerdiff-") and uploads.is_relative_to(root)
    assert not root.exists()


def test_gradios_own_setting_is_left(tmp_path):
    assert chosen(EMERDIFF_CACHE=str(tmp_path), GRADIO_TEMP_DIR="/somewhere/else")[1] == Path("/somewhere/else")


def test_what_a_server_that_was_killed_left_is_removed_after_a_day(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "a.png").touch()
    (tmp_path / "old.png").touch()
    for entry in (old, tmp_path / "old.png"):
        os.utime(entry, (time.time() - 25 * 3600,) * 2)
    folders.sweep(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["new"] and (new / "a.png").exists()
    folders.sweep(tmp_path / "nowhere")


@pytest.fixture
def example(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "FINE", 3)
    Image.fromarray(draw_scene(5, 64).image).save(tmp_path / "small.png")
    return replace(examples()[1], picture=tmp_path / "small.png", name="small")


def test_an_example_whose_result_cannot_be_kept_is_computed_and_shown(example, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(example_store, "CACHE", tmp_path / "file" / "cache")
    found = value_of(example_store.compute(example))
    assert len(np.unique(found.segmentation.coarse_labels)) == 3 and example_store.found(example) is None


def test_a_link_to_a_picture_that_cannot_be_kept_is_refused_with_a_sentence(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(links, "FOLDER", tmp_path / "file" / "linked")
    with pytest.raises(ValueError, match="this server cannot keep pictures at the moment"):
        links.keep(Image.new("RGB", (64, 64)))


POSIX_ALONE = {
    *("getuid", "geteuid", "getgid", "getegid", "getlogin", "fork", "forkpty", "nice", "uname", "getloadavg", "mkfifo"),
    *("chown", "lchown", "setsid", "killpg", "sched_getaffinity", "statvfs", "SIGKILL", "SIGHUP", "SIGALRM", "alarm"),
    *("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix"),
}


def test_nothing_that_a_user_runs_needs_what_windows_lacks():
    files = [ROOT / "app.py", *ROOT.glob("explorer/*.py"), *ROOT.glob("emerdiff/**/*.py")]
    trainer = ROOT / "emerdiff" / "miniature" / "pictures.py"  # forks its workers
    assert trainer in files
    for file in files:
        if file == trainer:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        tried = {id(node) for one in ast.walk(tree) if isinstance(one, ast.Try) for node in one.body}
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        imports = [node for node in imports if id(node) not in tried]
        used |= {alias.name for node in imports for alias in node.names}
        used |= {node.module for node in imports if isinstance(node, ast.ImportFrom) and not node.level}
        assert not used & POSIX_ALONE, f"{file}: {used & POSIX_ALONE}"
