"""``casemate tpm``: enrol a TPM's attestation key with the broker, after its maker's certificate proved whose it is."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from casemate.attestation.detect import TPM_VARIABLE
from casemate.attestation.endorsements import sort_endorsements
from casemate.attestation.platforms.tpm.attester import DEFAULT_TCTI, TpmAttester
from casemate.attestation.platforms.tpm.enrolment import (
    Challenge,
    EkTrust,
    Enrolment,
    Request,
    accept_answer,
    answer_id,
    make_answer,
    make_challenge,
)
from casemate.attestation.platforms.tpm.errors import TpmEnrolmentUnknownError, TpmEvidenceMalformedError
from casemate.attestation.platforms.tpm.structures import parse_tpmt_public
from casemate.attestation.platforms.tpm.trust import key_id
from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.errors import FileMissingError
from casemate.cli.output import Format, Output
from casemate.files import ensure_private_directory, write_whole
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand("Enrol a TPM's attestation key.")
_MAX_MESSAGE = 256 * 1024  # bytes
_T = TypeVar("_T")

TpmOption = Annotated[
    str | None,
    typer.Option(
        "--tpm", metavar="TCTI", help=f"The TPM, as tpm2-tss names it [default: ${TPM_VARIABLE}, else {DEFAULT_TCTI}]."
    ),
]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to, instead of stdout.")]


@app.callback()
def _group() -> None:
    """Enrol a TPM's attestation key: request, challenge, answer, enrol.

    The machine makes the request and the answer, the broker's administrator the challenge and the decision. The
    messages may travel any way: nobody but that TPM can open the challenge."""


@app.command(
    epilog=epilog(
        "casemate tpm request --out request.json",
        "casemate tpm request --tpm device:/dev/tpmrm0 --ek-certificate ek.der",
        exits={3: "undecided: there is no TPM here, or it has no certificate of its maker"},
    )
)
def request(
    tpm: TpmOption = None,
    ek_certificate: Annotated[
        Path | None,
        typer.Option("--ek-certificate", metavar="FILE", help="DER or PEM, instead of the one in the TPM."),
    ] = None,
    out: OutOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """On the machine: name its TPM's endorsement key, the maker's certificate for it, and the attestation key."""
    with TpmAttester(_tcti(tpm)) as attester:
        certificate = attester.ek_certificate if ek_certificate is None else _certificate(ek_certificate)
        made = Request(certificate, attester.ek_public, attester.ak_tpmt)
    _write(made.to_json(), out)
    Output(format).say(f"attestation key {key_id(parse_tpmt_public(made.ak_public))}")


@app.command(
    epilog=epilog(
        "casemate tpm challenge request.json --ek-ca infineon-root.pem --certs infineon-intermediate.pem --out c.json",
        "ssh machine casemate tpm request | casemate tpm challenge - --ek-ca ca.pem",
        exits={1: "refused: the certificate is not of that maker, or not of that TPM", 3: "a revocation list is stale"},
    )
)
def challenge(
    request: Annotated[Path, typer.Argument(help="The machine's request; `-` is stdin.", show_default=False)],
    ek_ca: Annotated[
        list[Path], typer.Option("--ek-ca", metavar="FILE", help="A root of the TPM's maker. Repeatable.")
    ],
    certs: Annotated[
        list[Path] | None,
        typer.Option("--certs", metavar="FILE", help="Certificates and revocation lists below it. Repeatable."),
    ] = None,
    out: OutOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """As the administrator: check the maker's certificate, and ask what only that TPM can answer.

    A maker certifies every TPM it sells: what names *this* one is the subject and serial number that are printed."""
    beside = sort_endorsements([_read(path) for path in certs or ()])
    trust = EkTrust(
        [_read(path) for path in ek_ca],
        [*beside.certificates, *beside.intel, *beside.amd],
        [*beside.crls, *beside.intel_crls, *beside.amd_crls],
    )
    asked = _message(request, Request.from_json)
    made, kept = make_challenge(asked, trust, now=datetime.now(UTC))
    directory = _directory()
    ensure_private_directory(directory)
    write_whole(directory / f"{kept.id}.json", json.dumps(kept.to_json(), indent=2).encode() + b"\n")
    _write(made.to_json(), out)
    output = Output(format)
    output.say(f"endorsement key: {kept.subject}, serial {kept.serial}, by {kept.issuer}")
    output.say(f"attestation key {kept.ak_id}; the challenge is good until {kept.expires:%Y-%m-%d %H:%MZ}")


@app.command(epilog=epilog("casemate tpm answer challenge.json --out answer.json", exits={3: "no TPM here"}))
def answer(
    challenge: Annotated[Path, typer.Argument(help="The administrator's challenge; `-` is stdin.", show_default=False)],
    tpm: TpmOption = None,
    out: OutOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """On the machine: let its TPM open the challenge. The answer is JSON in either format."""
    Output(format)
    asked = _message(challenge, Challenge.from_json)
    with TpmAttester(_tcti(tpm)) as attester:
        _write(make_answer(asked, attester.activate_credential(asked.credential, asked.secret)), out)


@app.command(
    epilog=epilog(
        "casemate tpm enrol answer.json --name spark-worker-7",
        "casemate tpm enrol answer.json --out ak.pem",
        exits={1: "refused: not the answer to a challenge that is waiting here"},
    )
)
def enrol(
    answer: Annotated[Path, typer.Argument(help="The machine's answer; `-` is stdin.", show_default=False)],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What the machine is called [default: by its key].")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the key there (PEM), for an authority of your own to sign."),
    ] = None,
    trust: Annotated[
        Path | None, typer.Option("--trust", metavar="DIR", help="Trust anchors [default: the embedded broker's].")
    ] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """As the administrator: compare the answer, and let the broker trust this attestation key.

    The broker notices within seconds. Which TPMs get data is still for each owner's policy to say: `platform_ids`."""
    settings, output = Settings.load(), Output(format)
    said = _message(answer, lambda value: value)
    kept_path = _directory() / f"{answer_id(said)}.json"
    try:
        kept = Enrolment.from_json(json.loads(kept_path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        raise TpmEnrolmentUnknownError(f"no challenge {answer_id(said)} is waiting in {kept_path.parent}") from None
    ak = accept_answer(kept, said, now=datetime.now(UTC))
    target = out
    if target is None:
        directory = (trust or settings.broker_dir / "trust") / "tpm" / "keys"
        ensure_private_directory(directory)
        target = directory / f"{_file_name(name) or kept.ak_id[:16]}.pem"
    write_whole(target, _pem(ak), mode=0o644)
    kept_path.unlink()
    output.say(f"enrolled {kept.subject}, serial {kept.serial}, by {kept.issuer}")
    value = {"ak_id": kept.ak_id, "path": str(target), "ek": {"subject": kept.subject, "serial": kept.serial}}
    output.data(value, kept.ak_id)


def _tcti(given: str | None) -> str:
    return given or os.environ.get(TPM_VARIABLE) or DEFAULT_TCTI


def _directory() -> Path:
    return Settings.load().home / "enrolments"


def _file_name(name: str | None) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name or "")[:64]


def _pem(spki: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

    return load_der_public_key(spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _certificate(path: Path) -> bytes:
    found = sort_endorsements([_read(path)])
    every = [*found.certificates, *found.intel, *found.amd]
    if len(every) != 1:
        raise TpmEvidenceMalformedError(f"{path}: need one certificate, got {len(every)}")
    return every[0]


def _read(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read(_MAX_MESSAGE + 1)
    try:
        with path.open("rb") as file:
            return file.read(_MAX_MESSAGE + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileMissingError(f"{path}: not found, or not a file") from None


def _message(path: Path, parse: Callable[[Any], _T]) -> _T:
    raw = _read(path)
    try:
        if len(raw) > _MAX_MESSAGE:
            raise ValueError(f"more than {_MAX_MESSAGE} bytes")
        value = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise TpmEvidenceMalformedError(f"{path}: not JSON that can be read ({exc})"[:300]) from exc
    return parse(value)


def _write(value: Any, out: Path | None) -> None:
    text = json.dumps(value, indent=2)
    if out is None:
        print(text, flush=True)
    else:
        out.write_text(text + "\n", encoding="utf-8")
