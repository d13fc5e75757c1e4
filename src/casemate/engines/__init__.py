"""One small module per engine: from an attested session to settings, environment and files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from casemate.workload.profile import Profile

__all__ = ["NAMES", "load"]

NAMES = ("plain", "spark")


def load(name: str) -> Profile:
    """The profile of the engine ``name``; imports that engine's module alone. Raises ``EngineUnknownError``."""
    if name == "plain":
        from casemate.engines.plain import PlainProfile

        return PlainProfile()
    if name == "spark":
        from casemate.engines.spark import SparkProfile

        return SparkProfile()
    from casemate.engines.errors import EngineUnknownError

    raise EngineUnknownError(f"engine {name!r}: know {', '.join(NAMES)}")
