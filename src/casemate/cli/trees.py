"""How `encrypt` and `decrypt` show progress and tell their result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

import typer

from casemate.cli.output import Output
from casemate.data.dataset import Progress, TreeResult

__all__ = ["JobsOption", "result_line", "result_value", "tree_progress"]

JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", min=1, max=64, help="Processes to work side by side.", show_default="as many as cores"),
]


@contextmanager
def tree_progress(output: Output, label: str) -> Iterator[Progress]:
    """A progress callback; its bar appears with the first report, which knows the total."""
    with ExitStack() as stack:
        seen = 0
        advance = None

        def progress(done: int, total: int) -> None:
            nonlocal seen, advance
            if advance is None:
                advance = stack.enter_context(output.progress(label, total))
            advance(done - seen)
            seen = done

        yield progress


def result_value(result: TreeResult) -> dict[str, Any]:
    """The result as JSON. Sizes in bytes."""
    return {
        "dataset": str(result.dataset),
        "location": result.location,
        "files": result.files,
        "plaintext_size_bytes": result.plaintext_size,
        "stored_size_bytes": result.stored_size,
        "generation": result.generation,
        "destination": None if result.destination is None else str(result.destination),
        "kept_files": result.kept,
    }


def result_line(verb: str, result: TreeResult) -> str:
    """The result as a sentence."""
    files = "1 file" if result.files == 1 else f"{result.files} files"
    generation = "manifest not checked" if result.generation is None else f"generation {result.generation}"
    kept = f" ({result.kept} of them by a run that was killed)" if result.kept else ""
    return f"{verb} {files}{kept}, {result.plaintext_size} bytes: {result.destination} ({result.dataset}, {generation})"
