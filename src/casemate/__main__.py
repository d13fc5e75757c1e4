"""``python -m casemate``: the same as the ``casemate`` command."""

from __future__ import annotations

from casemate.cli.main import main

if __name__ == "__main__":
    main()
