"""Pin everything that this project needs to what is installed, and write constraints.txt.

Usage: ``.venv/bin/python tools/write_constraints.py``, after an upgrade that passed the tests.
Packages of extras that are not installed keep the pin that they had.
"""

from __future__ import annotations

import tomllib
from importlib import metadata
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "constraints.txt"
HEADER = """\
# Versions that are known to work together: pip install -c constraints.txt ...
# Written by tools/write_constraints.py.
"""


def direct_requirements() -> list[Requirement]:
    """Read the dependencies of the project and of all its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(chain(project["dependencies"], *project["optional-dependencies"].values()))
    return [Requirement(line) for line in lines]


def installed_closure(requirements: list[Requirement]) -> dict[str, str]:
    """Follow requirements through what is installed; name to version."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(r.name), e) for r in requirements for e in ("", *r.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        versions[name] = distribution.version.partition("+")[0]  # torch's +cpu is one build of many
        for line in distribution.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), e) for e in ("", *needed.extras)]
    return versions


def main() -> None:
    """Write the file."""
    requirements = direct_requirements()
    direct = {canonicalize_name(requirement.name) for requirement in requirements}
    versions = installed_closure(requirements)
    if TARGET.is_file():
        kept = (line.partition("==") for line in TARGET.read_text().splitlines() if "==" in line)
        pins = {canonicalize_name(name): version for name, _, version in kept}
        versions |= {name: pins[name] for name in direct - versions.keys() if name in pins}
    blocks = [
        ("Named in pyproject.toml", direct & versions.keys()),
        ("Needed by those", versions.keys() - direct),
    ]
    text = HEADER
    for title, names in blocks:
        text += f"\n# {title}\n" + "".join(f"{n}=={versions[n]}\n" for n in sorted(names))
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
