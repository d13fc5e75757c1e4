"""From evidence to attestation results (RFC 9334): verifiers, appraisal policies, tokens."""

from __future__ import annotations

import warnings

# Makers' certificates break rules that the library warns of at every touch, wherever that happens: Google's and
# NVIDIA's names are longer than X.520 allows, AMD's serial numbers are 0. What matters here is judged by the verifiers.
for _message in ("Attribute's length must be", "Parsed a serial number which wasn't positive"):
    warnings.filterwarnings("ignore", _message, UserWarning)
