"""Fill in a manifest's command: the verified program, its arguments, the interpreter."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from casemate.engines.errors import EngineUnavailableError
from casemate.workload.manifest import ARGUMENTS, BUNDLE, PROGRAM
from casemate.workload.session import AttestedSession

__all__ = ["expand", "filled"]

_INTERPRETERS = frozenset({"python", "python3"})

Finder = Callable[[str], Path | None]


def filled(text: str, program: Path, bundle: Path) -> str:
    """``text`` with ``{program}`` and ``{bundle}`` replaced by the paths of the verified copies."""
    return text.replace(PROGRAM, str(program)).replace(BUNDLE, str(bundle))


def expand(session: AttestedSession, environment: Mapping[str, str], find: Finder = lambda _: None) -> tuple[str, ...]:
    """The manifest's command as argv. Element ``{args}`` becomes all arguments.

    The first element is looked for by ``find`` (the engine's own programs), is this very interpreter when it is
    ``python``, and else is looked for on the environment's PATH. Raises ``EngineUnavailableError``."""
    argv: list[str] = []
    for element in session.manifest.command:
        if element == ARGUMENTS:
            argv += session.manifest.arguments
        else:
            argv.append(filled(element, session.program, session.bundle_dir))
    own = find(argv[0])
    if own is not None:
        argv[0] = str(own)
    elif argv[0] in _INTERPRETERS:
        argv[0] = sys.executable
    else:
        found = shutil.which(argv[0], path=environment["PATH"])
        if found is None:
            raise EngineUnavailableError(f"{argv[0]}: no such program on {environment['PATH']}")
        argv[0] = found
    return tuple(argv)
