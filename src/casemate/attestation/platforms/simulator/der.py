"""The little DER that the SGX extension of a PCK certificate needs (Intel PCK Certificate and CRL Profile 1.5)."""

from __future__ import annotations

from cryptography import x509

__all__ = ["sgx_extension"]

_SGX = "1.2.840.113741.1.13.1"


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 0x80 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def _oid(dotted: str) -> bytes:
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    out = bytearray([40 * first + second])
    for arc in rest:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        out += bytes(reversed(groups))
    return _tlv(0x06, bytes(out))


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _boolean(value: bool) -> bytes:
    return _tlv(0x01, b"\xff" if value else b"\0")


def _pair(suffix: str, value: bytes) -> bytes:
    return _tlv(0x30, _oid(f"{_SGX}.{suffix}") + value)


def sgx_extension(
    ppid: bytes, cpu_svn: bytes, pce_svn: int, fmspc: bytes, piid: bytes, *, dynamic: bool, smt: bool
) -> x509.UnrecognizedExtension:
    """The extension that says which platform a PCK certificate is for, and at which TCB."""
    components = b"".join(_pair(f"2.{i}", _integer(svn)) for i, svn in enumerate(cpu_svn, 1))
    tcb = components + _pair("2.17", _integer(pce_svn)) + _pair("2.18", _tlv(0x04, cpu_svn))
    configuration = _pair("7.1", _boolean(dynamic)) + _pair("7.2", _boolean(False)) + _pair("7.3", _boolean(smt))
    content = (
        _pair("1", _tlv(0x04, ppid))
        + _pair("2", _tlv(0x30, tcb))
        + _pair("3", _tlv(0x04, bytes(2)))
        + _pair("4", _tlv(0x04, fmspc))
        + _pair("5", _tlv(0x0A, b"\x01"))
        + _pair("6", _tlv(0x04, piid))
        + _pair("7", _tlv(0x30, configuration))
    )
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(_SGX), _tlv(0x30, content))
