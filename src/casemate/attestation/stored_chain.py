"""The certificate chain inside a quote, put in order: leaf, intermediate, root.

Nothing signs the chain's text, and some tools write it root first; Intel's own library takes any order. Only whole
certificates change places, so that a quote keeps its size and every other byte.
"""

from __future__ import annotations

import re

from cryptography import x509

__all__ = ["leaf_first"]

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]{1,8192}?-----END CERTIFICATE-----")
_MAX = 8  # certificates


def leaf_first(quote: bytes) -> bytes:
    """``quote`` with its certificates so that each is issued by the next; as it is when they are no single chain."""
    found = list(_CERTIFICATE.finditer(quote))
    if not 2 <= len(found) <= _MAX:
        return quote
    try:
        parsed = [x509.load_pem_x509_certificate(match[0]) for match in found]
        names = [(certificate.subject, certificate.issuer) for certificate in parsed]
    except (ValueError, TypeError, x509.InvalidVersion):
        return quote
    issuers = {issuer for subject, issuer in names if subject != issuer}
    leaves = [i for i, (subject, issuer) in enumerate(names) if subject not in issuers and subject != issuer]
    if len(leaves) != 1 or leaves == [0] or len({subject for subject, _ in names}) != len(names):
        return quote
    order = leaves
    while len(order) < len(names):
        above = [i for i, (subject, _) in enumerate(names) if subject == names[order[-1]][1] and i not in order]
        if not above:
            return quote
        order.append(above[0])
    return _permuted(quote, [(m.start(), m.end()) for m in found], order)


def _permuted(raw: bytes, spans: list[tuple[int, int]], order: list[int]) -> bytes:
    """``raw`` with the parts at ``spans`` in another order; what lies between them stays where it is."""
    out, end = bytearray(), 0
    for (start, stop), index in zip(spans, order, strict=True):
        out += raw[end:start] + raw[slice(*spans[index])]
        end = stop
    return bytes(out + raw[end:])
