"""What is written for people is true: commands parse, examples run, and whatever is named is there."""

import pkgutil
import re
import shlex
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

from emerdiff import EmerDiffPipeline, Segmentation
from emerdiff.imagetext import CLIPS
from emerdiff.loading import REVISIONS, SMALL_AUTOENCODERS
from emerdiff.studies.layouts import LAYOUTS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAPERS = (README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "emerdiff" / "miniature" / "README.md")
TEXTS = {path: path.read_text(encoding="utf-8") for path in PAPERS}
OF_A_DATASET = {  # that a reader brings
    f"{file.parent.as_posix()}/" for layout in LAYOUTS for split in layout.splits for file in layout.files(split)
}
ELSEWHERE = {*REVISIONS, *CLIPS, *SMALL_AUTOENCODERS.values(), "/gradio_api/mcp/"}  # on the Hub, or an address

each = pytest.mark.parametrize("path", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))


def code(text: str) -> list[str]:
    """Lines of code blocks, fenced or indented, and what stands in backticks within a line."""
    fenced = [line for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return fenced + re.findall(r"^ {4}(\S.*)$", rest, re.M) + re.findall(r"`([^`\n]+)`", rest)


def commands(path: Path) -> list[list[str]]:
    """Words of each `emerdiff …` and `python -m emerdiff… …` that a reader can type, without the interpreter."""
    lines = [line.removeprefix("python -m ") for line in code(TEXTS[path])]
    return [shlex.split(line) for line in lines if re.match(r"emerdiff[\w.]* [^…]+$", line)]


def anchors(text: str) -> set[str]:
    """What links to a heading end in, as GitHub and Hugging Face make it."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short_and_has_the_two_commands():
    assert len(README.read_bytes()) <= 8000
    for command in ("requirements.txt && python app.py", "requirements-dev.txt && pytest"):
        assert f"\n    pip install -r {command}\n" in TEXTS[README]


def test_the_space_card_is_complete():
    card = TEXTS[README].split("---")[1]
    for key in ("title", "sdk: gradio", "sdk_version", 'python_version: "3.12"', "app_file: app.py", "license: mit"):
        assert key in card
    assert len(re.search(r"short_description: (.*)", card).group(1)) <= 60


@each
def test_links_lead_to_what_is_there(path):
    targets = re.findall(r"\]\(((?!https?:)[^)\s]+)\)", TEXTS[path])
    assert targets
    for target in targets:
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.is_relative_to(ROOT) and linked.exists(), target
        assert not anchor or anchor in anchors(TEXTS[linked]), target


@each
def test_files_and_names_in_code_are_there(path):
    for line in code(TEXTS[path]):
        for file in re.findall(r"(?<![\w./-])(?:emerdiff|explorer|examples|tests|docs)/[\w./-]*", line):
            assert (ROOT / file).exists(), line
        if re.fullmatch(r"[\w-]+/[\w./-]+|[\w./-]+(\.py|/)", line) and line not in OF_A_DATASET | ELSEWHERE:
            assert (ROOT / line).exists() or (path.parent / line).exists(), line
        for name in re.findall(r"(?<![\w./])(?:emerdiff|explorer)(?:\.[A-Za-z_]\w*)+", line):
            pkgutil.resolve_name(name)
        for name in re.findall(r"\bpipe\.(\w+)", line):
            assert hasattr(EmerDiffPipeline, name), line


def test_what_the_guide_says_of_a_result_is_there():
    paragraph = re.search(r"^\*\*Result\.\*\*.*?\n\n", TEXTS[ROOT / "docs" / "guide.md"], re.M | re.S).group()
    for name in re.findall(r"`([a-z]\w+)(?:\(\w*\))?`", paragraph):
        assert name in Segmentation.__dataclass_fields__ or hasattr(Segmentation, name), name


class Parsed(Exception):
    """Raised in place of what a command would do."""


@pytest.mark.parametrize("words", [w for path in PAPERS for w in commands(path)], ids=" ".join)
def test_commands_parse(words, monkeypatch, tmp_path):
    parse = ArgumentParser.parse_args

    def parse_and_stop(self, *args):
        parse(self, *args)
        raise Parsed

    monkeypatch.chdir(tmp_path)  # where a file to be written is tried
    monkeypatch.setattr(ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", words)
    module = "emerdiff.__main__" if words[0] == "emerdiff" else words[0]
    with pytest.raises(Parsed):
        pkgutil.resolve_name(f"{module}:main")()


def python(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", TEXTS[path], re.S)


def test_the_python_example_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(python(README)[0], {})
    assert re.search(r"\(256, 256\) \d+% of the pixels differ", capsys.readouterr().out)


def test_the_guides_python_example_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(python(ROOT / "docs" / "guide.md")[0], names := {})
    assert names["result"].differences.shape[0] == 12 and names["few"].differences.shape[0] == 6


def test_the_endpoints_are_those_of_the_page():
    from app import create_demo

    written = {name for text in TEXTS.values() for name in re.findall(r'["`](/\w+)["`]', text)}
    assert written == set(create_demo().get_api_info()["named_endpoints"])
