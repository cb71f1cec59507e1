"""The package as others install it: one wheel, with the miniature's weights and a command."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

import emerdiff

ROOT = Path(__file__).parents[1]
IMPORTED = """
import numpy as np
import emerdiff
pipe = emerdiff.load("miniature")
result = pipe("scene.png", pipe.settings(num_segments=3, preset="preview"))
print(emerdiff.__version__, emerdiff.__file__, np.unique(result.labels).tolist())
"""


def run(*command, **options) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [*map(str, command)], check=True, text=True, stdout=subprocess.PIPE, timeout=240, env=environment, **options
    ).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, as the build leaves files beside the sources; offline."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "emerdiff", folder / "emerdiff")
    for name in ("pyproject.toml", "setup.py", "requirements.txt", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("emerdiff/stub.pyi", "tests/__init__.py", "explorer/__init__.py", "runs/old.json"):  # not for others
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    run(sys.executable, "-m", "pip", "wheel", "-q", *offline, "-w", folder / "wheels", folder)
    (built,) = (folder / "wheels").iterdir()
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A fresh environment's folder of programs, with the wheel in it.

    Its dependencies are not downloaded: it also sees the packages of the environment that runs the tests.
    """
    folder = tmp_path_factory.mktemp("environment")
    builder = venv.EnvBuilder(with_pip=False)
    builder.create(folder)
    programs = Path(builder.ensure_directories(folder).bin_path)
    python = programs / Path(sys.executable).name
    own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    Path(own, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    return programs


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if not re.match(r"emerdiff-[\d.]+\.dist-info/", name)}
        metadata = archive.read(f"emerdiff-{emerdiff.__version__}.dist-info/METADATA").decode()
    modules = set((ROOT / "emerdiff").rglob("*.py"))
    folders = (ROOT / "emerdiff" / "miniature" / name for name in ("weights", "clip"))
    weights = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    assert files == {path.relative_to(ROOT).as_posix() for path in modules | weights}
    needed = set(re.findall(r"Requires-Dist: ([\w-]+)", metadata))
    assert {"torch", "diffusers", "transformers"} < needed and not needed & {"gradio", "platformdirs", "pytest"}


def test_an_installed_command_and_package_segment_a_picture_outside_the_repository(environment, picture, tmp_path):
    picture.save(tmp_path / "scene.png")
    options = ["--num-segments", 3, "--preset", "preview", "--out", "out"]
    told = run(environment / "emerdiff", "segment", "scene.png", *options, cwd=tmp_path)
    assert told == f"scene.png -> {Path('out', 'scene')}\n"
    labels = np.asarray(Image.open(tmp_path / "out" / "scene_labels.png"))
    assert labels.shape == picture.size[::-1] and set(np.unique(labels)) <= {0, 1, 2}
    told = run(environment / Path(sys.executable).name, "-c", IMPORTED, cwd=tmp_path)
    version, file, segments = told.split(maxsplit=2)
    assert version == emerdiff.__version__ and Path(file).is_relative_to(environment.parent)
    assert set(json.loads(segments)) <= {0, 1, 2}
