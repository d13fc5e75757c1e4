"""Where the demonstration's programs are: beside the package in a wheel, in ``examples/`` in a checkout."""

from __future__ import annotations

from pathlib import Path

from casemate.errors import FailedError

__all__ = ["program"]


def program(name: str) -> Path:
    """The path of an example program; raises ``FailedError`` when this installation has none."""
    here = Path(__file__).resolve().parent
    for directory in (here / "examples", here.parents[2] / "examples"):
        if (directory / name).is_file():
            return directory / name
    raise FailedError(f"the example {name} is not part of this installation")
