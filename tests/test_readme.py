"""The README is the specification: its snippet runs and its table names the files that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_names_every_module():
    named = set(re.findall(r"^\| `((?:emerdiff|explorer)/\w+\.py)` \|", README, re.M))
    there = [path for package in ("emerdiff", "explorer") for path in ROOT.glob(f"{package}/*.py")]
    assert named == {f"{path.parent.name}/{path.name}" for path in there if path.name != "__init__.py"}


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_python_snippet_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(re.search(r"```python\n(.*?)```", README, re.S).group(1), {})
    assert re.search(r"\(256, 256\) \d+% of the pixels differ", capsys.readouterr().out)


def test_the_space_card_is_complete():
    card = README.split("---")[1]
    for key in ("title", "sdk: gradio", "sdk_version", 'python_version: "3.12"', "app_file: app.py", "license: mit"):
        assert key in card
    assert len(re.search(r"short_description: (.*)", card).group(1)) <= 60
