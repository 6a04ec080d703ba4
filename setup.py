"""Which packages a wheel holds: ours, and the folder recipes/ as `r1_mini/recipes`. The rest is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["r1_mini", "r1_mini.*", "eval", "eval.*"]), "r1_mini.recipes"],
    package_dir={"r1_mini.recipes": "recipes"},
    package_data={"": ["**/*.yaml", "**/*.jsonl", "**/*.css", "**/*.jinja", "**/*.js"]},
)
