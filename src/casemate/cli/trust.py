"""``casemate trust``: show and add the anchors that a broker verifies evidence with."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from casemate.attestation.endorsements import Endorsements, common_name, sort_endorsements
from casemate.attestation.platforms.tpm.structures import parse_public_key
from casemate.attestation.platforms.tpm.trust import key_id
from casemate.attestation.stored import MAX_STORED_BYTES
from casemate.attestation.trust_errors import TrustAnchorError
from casemate.attestation.trust_files import load_trust
from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.errors import FileMissingError
from casemate.cli.failure import print_outcome
from casemate.cli.output import Format, Output, table
from casemate.errors import CasemateError, UsageError
from casemate.files import ensure_private_directory, write_whole
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand("Show and add a broker's trust anchors.")


class What(StrEnum):
    """What a file is to be trusted as."""

    INTEL_ROOT = "intel-root"
    TPM_KEY = "tpm-key"
    TPM_ROOT = "tpm-root"
    TPM_CERTIFICATE = "tpm-certificate"
    TPM_CRL = "tpm-crl"
    GPU_ROOT = "gpu-root"
    GPU_CRL = "gpu-crl"


_PLACES = {
    What.TPM_KEY: "keys",
    What.TPM_ROOT: "roots",
    What.TPM_CERTIFICATE: "certificates",
    What.TPM_CRL: "crls",
    What.GPU_ROOT: "roots",
    What.GPU_CRL: "crls",
}
DirectoryOption = Annotated[
    Path | None, typer.Option("--dir", metavar="DIR", help="Trust anchors [default: the embedded broker's].")
]


@app.callback()
def _group() -> None:
    """Show and add a broker's trust anchors: whose word makes evidence count.

    They are files; deleting one takes the trust back. A running broker notices within seconds."""


@app.command(
    epilog=epilog(
        "casemate trust show",
        "casemate trust show --dir /srv/broker/trust --format json",
        exits={3: "a file is damaged: evidence that it is for stays undecided"},
    )
)
def show(dir: DirectoryOption = None, format: FormatOption = Format.TEXT) -> None:
    """Show every anchor, the kinds of evidence that can be verified with them, and what is damaged."""
    directory, output = _directory(dir), Output(format)
    damage: list[CasemateError] = []
    kinds = load_trust(directory, collateral=_further(dir), on_damage=damage.append).kinds
    anchors = list(_anchors(directory))
    value = {
        "directory": str(directory),
        "verifies": list(kinds),
        "anchors": anchors,
        "damaged": [{"code": error.code, "message": error.message} for error in damage],
    }
    rows = [tuple(anchor[name] for name in ("file", "name", "sha256", "until")) for anchor in anchors]
    output.data(value, lambda: table(rows, ("file", "name", "sha256", "until")))
    output.say(f"verifies {', '.join(kinds)}" if kinds else "verifies nothing: no trust anchor")
    if any(anchor["simulated"] for anchor in anchors):
        output.simulated("anchors are among them: they vouch for no real platform")
    for error in damage:
        print_outcome("undecided", error.code, error.message, error.fix, None)
    raise typer.Exit(3 if damage else 0)


@app.command(
    epilog=epilog(
        "casemate trust add ak.pem --as tpm-key",
        "casemate trust add our-ak-ca.pem --as tpm-root",
        "casemate trust add nvidia-device-root.pem --as gpu-root",
        exits={2: "usage, or the file cannot serve as that; nothing was changed"},
    )
)
def add(
    file: Annotated[Path, typer.Argument(help="Certificate, revocation list or public key; DER or PEM.")],
    what: Annotated[What, typer.Option("--as", help="What it is to be trusted as.", show_default=False)],
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Evidence below it is SIMULATED; production policies refuse it.")
    ] = False,
    dir: DirectoryOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Trust a file, after checking that it can serve as that beside the anchors there are.

    AMD's and Intel's roots come with their collateral, see `casemate collateral`; their keys are pinned."""
    content, directory = _read(file), _directory(dir)
    target = directory / _place(what, simulated, content, file)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "trust"
        if directory.is_dir():
            shutil.copytree(directory, copy)
        draft = copy / target.relative_to(directory)
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        try:
            load_trust(copy)
        except CasemateError as exc:
            raise type(exc)(exc.message.replace(str(draft), str(file)).replace(str(copy), str(directory))) from exc
    for parent in reversed([p for p in target.parents if p == directory or directory in p.parents]):
        ensure_private_directory(parent)
    write_whole(target, content)
    output = Output(format)
    if simulated:
        output.simulated(f"anchor {target}: evidence below it protects nothing")
    output.data({"path": str(target), "as": str(what), "simulated": simulated}, f"trusted as {what}: {target}")


def _directory(given: Path | None) -> Path:
    return given or Settings.load().broker_dir / "trust"


def _further(given: Path | None) -> list[Path]:
    """The collateral that the embedded broker reads besides."""
    return [] if given is not None else [Settings.load().home / "collateral"]


def _place(what: What, simulated: bool, content: bytes, file: Path) -> Path:
    found = sort_endorsements([content])
    _require(what, found, file)
    if what is What.INTEL_ROOT:
        if simulated:
            raise UsageError("--simulated: Intel's root is no simulator's")
        return Path("intel_root.der")
    platform = str(what).partition("-")[0] + ("-simulated" if simulated else "")
    suffix = "pem" if content.lstrip()[:1] == b"-" else "der"
    return Path(platform) / _PLACES[what] / f"{hashlib.sha256(content).hexdigest()[:16]}.{suffix}"


def _require(what: What, found: Endorsements, file: Path) -> None:
    certificates = len(found.certificates) + len(found.intel) + len(found.amd)
    lists = len(found.crls) + len(found.intel_crls) + len(found.amd_crls)
    counts = {"key": len(found.keys), "crl": lists}
    kind = str(what).rpartition("-")[2]
    wanted = counts.get(kind, certificates)
    if wanted == 0 or wanted != certificates + lists + len(found.keys):
        raise TrustAnchorError(
            f"{file}: to be trusted as {what}, got {certificates} certificates, {lists} revocation lists, "
            f"{len(found.keys)} keys"
        )


def _anchors(directory: Path) -> Iterator[dict[str, Any]]:
    """What can be told of each file; one that cannot be read is told by the loader."""
    for path in sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix != ".json"):
        relative = path.relative_to(directory)
        if relative.parts[0] == "collateral" or path.name.startswith("."):
            continue
        try:
            found = sort_endorsements([path.read_bytes()])
        except (CasemateError, OSError):
            continue
        about = {"file": str(relative), "simulated": "simula" in relative.parts[0]}
        for der in found.keys:
            yield {**about, "name": "attestation key", "sha256": key_id(parse_public_key(der)), "until": "-"}
        for der in (*found.intel, *found.amd, *found.certificates):
            yield {**about, **_named(der)}
        for der in (*found.crls, *found.intel_crls, *found.amd_crls):
            yield {**about, "name": "revocation list", "sha256": hashlib.sha256(der).hexdigest(), "until": _next(der)}


def _named(der: bytes) -> dict[str, str]:
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(der)
    return {
        "name": common_name(certificate.subject) or certificate.subject.rfc4514_string(),
        "sha256": hashlib.sha256(der).hexdigest(),
        "until": f"{certificate.not_valid_after_utc:%Y-%m-%d}",
    }


def _next(der: bytes) -> str:
    from cryptography import x509

    end = x509.load_der_x509_crl(der).next_update_utc
    return "-" if end is None else f"{end:%Y-%m-%d %H:%MZ}"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_STORED_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileMissingError(f"{path}: not found, or not a file") from None
