"""Events of a measured-boot log as rules of confidential-containers policies read them. Pure functions.

Device paths: UEFI 2.10 section 10.3; the event layouts: TCG PC Client Platform Firmware Profile 1.06, section 10.
What cannot be read is left out of ``details``; a rule that asks for it does not hold.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from casemate.attestation.eventlog import Event, EventLog

__all__ = ["uefi_events"]

MAX_EVENTS = 4096  # for a policy; a real boot has some hundred
_IMAGE_HEAD = 32  # bytes of UEFI_IMAGE_LOAD_EVENT before the device path: address, length, link time, path length
_NODE_HEAD = 4  # bytes of a device path node: type, sub-type, length
_END = 0x7F
_NAMES = {"sha1": "SHA-1", "sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}


def uefi_events(log: EventLog) -> list[dict[str, Any]]:
    """An object per event: ``index`` (register), ``type``, ``type_name``, ``digests``, ``event`` (base64), ``details``.

    Only the digests are proven by the replay; ``details`` describe data that a digest need not cover."""
    return [
        {
            "index": event.register,
            "type": f"0x{event.type:08X}",
            "type_name": event.name,
            "digests": [{"alg": _NAMES.get(b, b), "digest": digest.hex()} for b, digest in event.digests.items()],
            "event": base64.b64encode(event.data).decode(),
            "details": _details(event),
        }
        for event in log.events[:MAX_EVENTS]
    ]


def _details(event: Event) -> dict[str, Any]:
    if event.name in ("EV_EFI_BOOT_SERVICES_APPLICATION", "EV_EFI_BOOT_SERVICES_DRIVER"):
        paths = [_shown(*node) for node in _nodes(event.data)]
        return {"device_paths": paths} if paths else {}
    if event.name == "EV_EVENT_TAG":
        size = int.from_bytes(event.data[4:8], "little")
        return _string(event.data[8 : 8 + size]) if size <= len(event.data) - 8 else {}
    if event.name in ("EV_IPL", "EV_ACTION", "EV_EFI_ACTION", "EV_POST_CODE"):
        return _string(event.data)
    return {}


def _string(data: bytes) -> dict[str, Any]:
    try:
        return {"string": data.decode().replace("\0", "")}
    except UnicodeDecodeError:
        return {}


def _nodes(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The nodes of an image's device path: type, sub-type, content."""
    path = data[_IMAGE_HEAD : _IMAGE_HEAD + int.from_bytes(data[24:32], "little")]
    while len(path) >= _NODE_HEAD and path[0] != _END:
        size = int.from_bytes(path[2:4], "little")
        if not _NODE_HEAD <= size <= len(path):
            return
        yield path[0], path[1], path[_NODE_HEAD:size]
        path = path[size:]


def _shown(kind: int, sub_kind: int, content: bytes) -> str:
    text = _utf16(content)
    if (kind, sub_kind) == (1, 1) and len(content) == 2:
        return f"Pci({content[0]},{content[1]})"
    if (kind, sub_kind) == (4, 4) and text is not None:
        return f"File({text})"
    return f"Path({kind},{sub_kind},{content.hex() if text is None else text})"


def _utf16(content: bytes) -> str | None:
    """UTF-16 up to its first zero, when it is printable ASCII at least nine times in ten."""
    if len(content) < 2 or len(content) % 2:
        return None
    try:
        text = content.decode("utf-16-le").partition("\0")[0]
    except UnicodeDecodeError:
        return None
    printable = sum(c.isascii() and (c.isprintable() or c.isspace()) for c in text)
    return text if text and printable > 0.9 * len(text) else None
