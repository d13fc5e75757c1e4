"""TPM 2.0 structures (TCG TPM 2.0 Library, Part 2) read from untrusted bytes: quotes, signatures, public keys.

Every length is bounded before it is believed, and every structure must end where its bytes end.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from casemate.attestation.platforms.tpm.errors import (
    TpmAttestTypeError,
    TpmHashUnsupportedError,
    TpmKeyUnsupportedError,
    TpmMagicError,
    TpmOversizedError,
    TpmPcrSelectionError,
    TpmSchemeUnsupportedError,
    TpmTrailingBytesError,
    TpmTruncatedError,
)
from casemate.attestation.wire import Reader

__all__ = [
    "DIGEST_SIZES",
    "HASH_NAMES",
    "AkPublic",
    "PcrSelection",
    "Quote",
    "Signature",
    "parse_public_key",
    "parse_quote",
    "parse_signature",
    "parse_tpmt_public",
]

TPM_GENERATED = 0xFF544347  # "\xffTCG"; a restricted key signs nothing from outside that starts so
ST_ATTEST_QUOTE = 0x8018
HASH_NAMES = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}  # TPM_ALG_ID
DIGEST_SIZES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
MAX_STRUCTURE_BYTES = 4096
MAX_DIGEST_BYTES = 64
MAX_NAME_BYTES = 2 + MAX_DIGEST_BYTES
MAX_NONCE_BYTES = 2 + MAX_DIGEST_BYTES  # sizeof(TPMT_HA)
MAX_RSA_BYTES = 512
MAX_ECC_BYTES = 66
MAX_SELECTIONS = 16
MAX_SELECT_BYTES = 4  # bitmap of 32 PCRs; real TPMs have 24

_ALG_NULL = 0x0010
_RSASSA, _RSAPSS, _ECDSA = 0x0014, 0x0016, 0x0018
_SCHEMES = {_RSASSA: "rsassa", _RSAPSS: "rsapss", _ECDSA: "ecdsa"}
_CURVES: dict[int, type[ec.EllipticCurve]] = {3: ec.SECP256R1, 4: ec.SECP384R1, 5: ec.SECP521R1}
_RESTRICTED_SIGNER = 0x00050032  # sign | restricted | sensitiveDataOrigin | fixedParent | fixedTPM
_DECRYPT = 0x00020000


@dataclass(frozen=True, slots=True)
class PcrSelection:
    """Which PCRs of which bank (``sha256`` ...), ascending."""

    bank: str
    pcrs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Quote:
    """TPMS_ATTEST of a quote; ``nonce`` is what the caller gave TPM2_Quote as qualifying data (extraData)."""

    qualified_signer: bytes
    nonce: bytes
    clock_ms: int
    reset_count: int
    restart_count: int
    clock_safe: bool
    firmware_version: int
    selections: tuple[PcrSelection, ...]
    pcr_digest: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature with the scheme and hash the TPM says it used; ECDSA values are DER."""

    scheme: str  # rsassa | rsapss | ecdsa
    hash: str
    value: bytes


@dataclass(frozen=True, slots=True)
class AkPublic:
    """The public part of an attestation key.

    ``restricted`` is None when only the bare key is known: then whoever vouches for the key (a certificate, an
    allow-list, an HCL report) vouches for its attributes too."""

    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    restricted: bool | None = None

    @property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo, DER: the identity that allow-lists and certificates speak of."""
        return self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _reader(raw: bytes, name: str) -> Reader:
    if len(raw) > MAX_STRUCTURE_BYTES:
        raise TpmOversizedError(f"{name}: {len(raw)} bytes, at most {MAX_STRUCTURE_BYTES}")
    return Reader(raw, name=name, truncated=TpmTruncatedError, order="big")


def _sized(reader: Reader, what: str, limit: int) -> bytes:
    """A TPM2B field: u16 length, then bytes."""
    size = reader.u16(f"{what} size")
    if size > limit:
        raise TpmOversizedError(f"{reader.name}: {what} says {size} bytes, at most {limit}")
    return reader.take(size, what)


def _done(reader: Reader) -> None:
    if reader.left:
        raise TpmTrailingBytesError(f"{reader.name}: {reader.left} bytes after its end at {reader.offset}")


def hash_name(algorithm: int, what: str) -> str:
    """The name of a TPM_ALG_ID hash; raises ``TpmHashUnsupportedError``."""
    name = HASH_NAMES.get(algorithm)
    if name is None:
        raise TpmHashUnsupportedError(f"{what}: hash algorithm 0x{algorithm:04x}, known are {sorted(DIGEST_SIZES)}")
    return name


def parse_quote(message: bytes) -> Quote:
    """Read a TPMS_ATTEST that must be a quote; proves nothing before its signature is verified."""
    reader = _reader(message, "TPMS_ATTEST")
    magic = reader.u32("magic")
    if magic != TPM_GENERATED:
        raise TpmMagicError(f"TPMS_ATTEST: magic 0x{magic:08x}, expected 0x{TPM_GENERATED:08x}")
    kind = reader.u16("type")
    if kind != ST_ATTEST_QUOTE:
        raise TpmAttestTypeError(f"TPMS_ATTEST: type 0x{kind:04x}, expected 0x{ST_ATTEST_QUOTE:04x} (quote)")
    signer = _sized(reader, "qualifiedSigner", MAX_NAME_BYTES)
    nonce = _sized(reader, "extraData", MAX_NONCE_BYTES)
    clock, resets, restarts = reader.u64("clock"), reader.u32("resetCount"), reader.u32("restartCount")
    safe, firmware = reader.u8("safe"), reader.u64("firmwareVersion")
    selections = _parse_selections(reader)
    digest = _sized(reader, "pcrDigest", MAX_DIGEST_BYTES)
    _done(reader)
    return Quote(signer, nonce, clock, resets, restarts, safe == 1, firmware, selections, digest)


def _parse_selections(reader: Reader) -> tuple[PcrSelection, ...]:
    count = reader.u32("pcrSelect count")
    if count > MAX_SELECTIONS:
        raise TpmOversizedError(f"{reader.name}: {count} PCR selections, at most {MAX_SELECTIONS}")
    selections: list[PcrSelection] = []
    for _ in range(count):
        bank = hash_name(reader.u16("PCR bank"), reader.name)
        size = reader.u8("sizeofSelect")
        if size > MAX_SELECT_BYTES:
            raise TpmOversizedError(f"{reader.name}: a PCR bitmap of {size} bytes, at most {MAX_SELECT_BYTES}")
        bitmap = int.from_bytes(reader.take(size, "PCR bitmap"), "little")
        selections.append(PcrSelection(bank, tuple(n for n in range(size * 8) if bitmap >> n & 1)))
    banks = [selection.bank for selection in selections]
    if len(set(banks)) != len(banks):
        raise TpmPcrSelectionError(f"{reader.name}: a bank is selected twice: {banks}")
    if not any(selection.pcrs for selection in selections):
        raise TpmPcrSelectionError(f"{reader.name}: no PCR is selected")
    return tuple(selections)


def parse_signature(raw: bytes) -> Signature:
    """Read a TPMT_SIGNATURE."""
    reader = _reader(raw, "TPMT_SIGNATURE")
    algorithm = reader.u16("scheme")
    scheme = _SCHEMES.get(algorithm)
    if scheme is None:
        raise TpmSchemeUnsupportedError(f"TPMT_SIGNATURE: scheme 0x{algorithm:04x}, known are {sorted(_SCHEMES)}")
    hash_algorithm = hash_name(reader.u16("hash"), reader.name)
    if hash_algorithm == "sha1":
        raise TpmHashUnsupportedError("TPMT_SIGNATURE: signed over SHA-1, need SHA-256 or better")
    if scheme == "ecdsa":
        r = int.from_bytes(_sized(reader, "signatureR", MAX_ECC_BYTES), "big")
        s = int.from_bytes(_sized(reader, "signatureS", MAX_ECC_BYTES), "big")
        value = encode_dss_signature(r, s)
    else:
        value = _sized(reader, "signature", MAX_RSA_BYTES)
    _done(reader)
    return Signature(scheme, hash_algorithm, value)


def _accepted_key(key: object, what: str) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8 * MAX_RSA_BYTES:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, tuple(_CURVES.values())):
        return key
    raise TpmKeyUnsupportedError(f"{what}: need RSA of 2048 to 4096 bits, or ECC on P-256, P-384 or P-521")


def parse_public_key(raw: bytes) -> AkPublic:
    """Read a SubjectPublicKeyInfo, DER or PEM."""
    if len(raw) > MAX_STRUCTURE_BYTES:
        raise TpmOversizedError(f"attestation key: {len(raw)} bytes, at most {MAX_STRUCTURE_BYTES}")
    try:
        key = load_pem_public_key(raw) if raw.lstrip()[:1] == b"-" else load_der_public_key(raw)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise TpmKeyUnsupportedError("attestation key: not a SubjectPublicKeyInfo that can be read") from exc
    return AkPublic(_accepted_key(key, "attestation key"))


def rsa_public_key(modulus: int, exponent: int, what: str) -> AkPublic:
    """An RSA key from its numbers; raises ``TpmKeyUnsupportedError``."""
    try:
        return AkPublic(_accepted_key(rsa.RSAPublicNumbers(exponent, modulus).public_key(), what))
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise TpmKeyUnsupportedError(f"{what}: not a usable RSA key") from exc


def parse_tpmt_public(raw: bytes) -> AkPublic:
    """Read a TPMT_PUBLIC, and say whether its attributes make it a restricted signing key of its TPM."""
    reader = _reader(raw, "TPMT_PUBLIC")
    kind = reader.u16("type")
    hash_name(reader.u16("nameAlg"), reader.name)
    attributes = reader.u32("objectAttributes")
    _sized(reader, "authPolicy", MAX_DIGEST_BYTES)
    if reader.u16("symmetric") != _ALG_NULL:
        reader.take(4, "symmetric key bits and mode")
    if reader.u16("scheme") != _ALG_NULL:
        reader.take(2, "scheme hash")
    restricted = attributes & _RESTRICTED_SIGNER == _RESTRICTED_SIGNER and not attributes & _DECRYPT
    if kind == 0x0001:
        reader.u16("keyBits")
        exponent = reader.u32("exponent") or 65537
        modulus = int.from_bytes(_sized(reader, "modulus", MAX_RSA_BYTES), "big")
        _done(reader)
        return AkPublic(rsa_public_key(modulus, exponent, reader.name).key, restricted)
    if kind == 0x0023:
        curve = reader.u16("curveID")
        if reader.u16("kdf") != _ALG_NULL:
            reader.take(2, "kdf hash")
        x = int.from_bytes(_sized(reader, "x", MAX_ECC_BYTES), "big")
        y = int.from_bytes(_sized(reader, "y", MAX_ECC_BYTES), "big")
        _done(reader)
        return AkPublic(_ecc_key(curve, x, y), restricted)
    raise TpmKeyUnsupportedError(f"TPMT_PUBLIC: type 0x{kind:04x}, need RSA (0x0001) or ECC (0x0023)")


def _ecc_key(curve_id: int, x: int, y: int) -> ec.EllipticCurvePublicKey:
    curve = _CURVES.get(curve_id)
    if curve is None:
        raise TpmKeyUnsupportedError(f"TPMT_PUBLIC: curve 0x{curve_id:04x}, need P-256, P-384 or P-521")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise TpmKeyUnsupportedError("TPMT_PUBLIC: the point is not on its curve") from exc
