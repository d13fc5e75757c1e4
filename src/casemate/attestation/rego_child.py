"""The process that evaluates Rego: no file, no socket, little memory, and killed by its parent at the deadline.

``python -I -m casemate.attestation.rego_child``: requests on standard input, answers on standard output, each a 4-byte
big-endian length and JSON. ``{"op": "check", "policy"}`` or ``{"op": "evaluate", "policy", "rule", "input",
"reference_values"}`` gives ``{"value", "unknown"}`` or ``{"error"}``. A policy asks for a reference value by
``query_reference_value(name)`` or, as older ones do, by ``data.reference.name``.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

import regorus

__all__ = ["answer", "confine", "serve"]

_MEMORY_BYTES = 512 * 1024 * 1024
_MAX_ERROR = 500  # characters
_MAX_UNKNOWN = 64  # names told
_MAX_LINES, _MAX_COLUMNS, _MAX_BYTES = 20_000, 4_000, 1024 * 1024


def confine() -> None:
    """Take away what a policy has no use for: new descriptors (so files and sockets), written files, much memory."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate one request in an engine of its own, so that nothing is left of the one before."""
    try:
        engine = regorus.Engine()
        engine.set_policy_length_config(max_col=_MAX_COLUMNS, max_file_bytes=_MAX_BYTES, max_lines=_MAX_LINES)
        engine.add_policy("policy.rego", request["policy"])
        if request["op"] == "check":
            return {"value": True}
        known: Mapping[str, Any] = request["reference_values"]
        unknown: dict[str, None] = {}

        def query(name: Any) -> Any:
            """What is not known is an empty list: nothing is in it, and no number is at least as large as it."""
            if name in known:
                return known[name]
            if len(unknown) < _MAX_UNKNOWN:
                unknown[str(name)[:100]] = None
            return []

        engine.add_extension("query_reference_value", 1, query)
        engine.add_data_json(json.dumps({"reference": known}))
        engine.set_input_json(json.dumps(request["input"]))
        return {"value": _jsonable(engine.eval_rule(request["rule"])), "unknown": list(unknown)}
    except Exception as exc:  # whatever a policy provokes is an answer, too
        return {"error": f"{type(exc).__name__}: {str(exc).split('Stack backtrace')[0].strip()}"[:_MAX_ERROR]}


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(item) for item in value]
    return value


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer until the parent closes its end."""
    while len(head := source.read(4)) == 4:
        raw = json.dumps(answer(json.loads(source.read(int.from_bytes(head, "big"))))).encode()
        sink.write(len(raw).to_bytes(4, "big") + raw)
        sink.flush()


if __name__ == "__main__":
    confine()
    serve(sys.stdin.buffer, sys.stdout.buffer)
