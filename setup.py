"""The package's dependencies, which pyproject.toml leaves open: what requirements.txt lists before the page's own."""

from pathlib import Path

from setuptools import setup

text = Path(__file__).with_name("requirements.txt").read_text()
package, _page = text.split("\n# The page.", 1)
lines = (line.partition("#")[0].strip() for line in package.splitlines())
setup(install_requires=[line for line in lines if line])
