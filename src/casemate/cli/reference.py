"""``casemate reference``: reference values from a build, signed; what changed between two; a policy that pins them."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from casemate.attestation.appraise import appraise_stored
from casemate.attestation.reference import (
    NAMES,
    REFERENCE_TYPE,
    Input,
    Reference,
    changes,
    open_reference,
    policy_yaml,
    sign_reference,
    values_of_claims,
)
from casemate.attestation.reference_errors import (
    ReferenceBuilderUnknownError,
    ReferenceEmptyError,
    ReferenceInputError,
    ReferenceMalformedError,
)
from casemate.attestation.reference_sources import (
    Computed,
    SnpGuest,
    from_event_log,
    from_gramine,
    from_sigstruct,
    measure_runtime,
    measure_snp,
)
from casemate.attestation.stored import MAX_STORED_BYTES
from casemate.cli import identities
from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.errors import FileMissingError
from casemate.cli.output import Format, Output, table
from casemate.crypto.canonical import sha256_hex
from casemate.crypto.errors import SignatureInvalidError
from casemate.crypto.jose import Jwk, KeyPair, peek_jws_header
from casemate.errors import UsageError
from casemate.settings import Settings
from casemate.workload.manifest import MAX_MANIFEST_SIZE, WorkloadManifest

__all__ = ["app"]

app = subcommand("Compute reference values from a build, signed; show what changed between two.")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
BuilderOption = Annotated[
    str | None, typer.Option("--builder", metavar="NAME", help="The builder: an identity of this machine.")
]


class VmmType(StrEnum):
    """Whose virtual machine monitor launches the guest."""

    QEMU = "QEMU"
    EC2 = "ec2"
    GCE = "gce"


class PolicyPlatform(StrEnum):
    """What a policy is for."""

    SGX = "sgx"
    TDX = "tdx"
    SNP = "snp"
    SIMULATOR = "simulator"


@app.callback()
def _group() -> None:
    """Compute reference values from a build, signed by its builder; show what changed; pin them by a policy."""


@app.command(
    epilog=epilog(
        "casemate reference compute runtime-0.2 --ovmf OVMF.fd --kernel vmlinuz --initrd initrd.img \\",
        '    --append "console=ttyS0" --vcpus 4 --vcpu-type EPYC-Genoa --builder hospital --out runtime.jws',
        "casemate reference compute runtime-0.2 --event-log ccel.bin --register 0 --register 1 --builder hospital",
        "casemate reference compute runtime-0.2 --sigstruct app.sig --manifest workload.json --builder-key key.pem",
    )
)
def compute(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the build is called.", show_default=False)],
    ovmf: Annotated[Path | None, typer.Option("--ovmf", metavar="FILE", help="SNP: the guest's firmware.")] = None,
    vcpus: Annotated[int, typer.Option("--vcpus", min=1, max=4096, help="SNP: virtual processors.")] = 1,
    vcpu_type: Annotated[str, typer.Option("--vcpu-type", metavar="TYPE", help="SNP: by QEMU's name.")] = "EPYC-v4",
    kernel: Annotated[Path | None, typer.Option("--kernel", metavar="FILE", help="SNP: for direct boot.")] = None,
    initrd: Annotated[Path | None, typer.Option("--initrd", metavar="FILE", help="SNP: with --kernel.")] = None,
    append: Annotated[
        str | None, typer.Option("--append", metavar="TEXT", help="SNP: the kernel's command line.")
    ] = None,
    guest_features: Annotated[
        str, typer.Option("--guest-features", metavar="HEX", help="SNP: SEV_FEATURES of the guest.")
    ] = "0x1",
    vmm: Annotated[VmmType, typer.Option("--vmm", help="SNP: what launches the guest.")] = VmmType.QEMU,
    event_log: Annotated[
        Path | None, typer.Option("--event-log", metavar="FILE", help="TDX: the CCEL log of a boot known to be good.")
    ] = None,
    register: Annotated[
        list[int] | None,
        typer.Option("--register", min=0, max=3, help="TDX: the RTMRs to keep; all without it. Repeatable."),
    ] = None,
    sigstruct: Annotated[
        Path | None, typer.Option("--sigstruct", metavar="FILE", help="SGX: an enclave's signature file (.sig).")
    ] = None,
    gramine_manifest: Annotated[
        Path | None,
        typer.Option("--gramine-manifest", metavar="FILE", help="SGX: measured by Gramine's signer, if installed."),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", metavar="FILE", help="A workload manifest, for its digest.")
    ] = None,
    simulator: Annotated[bool, typer.Option("--simulator", help="The SIMULATED measurement of this runtime.")] = False,
    builder: BuilderOption = None,
    builder_key: Annotated[
        Path | None, typer.Option("--builder-key", metavar="FILE", help="The builder's private key (PKCS#8, P-256).")
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="How long the builder stands by them.")] = 365,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to, instead of stdout.")] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Compute what evidence of a build must say, from the build, and sign it.

    SNP launch digest (needs the extra `reference`), TDX RTMRs, MRENCLAVE, workload digest, the simulator's runtime
    measurement: whatever files are given. The document names each input by its SHA-256, and the tools."""
    output = Output(format)
    if not _NAME.fullmatch(name):
        raise UsageError(f"name {name[:80]!r}: need lower-case letters, digits, '.', '_', '-'")
    if sigstruct is not None and gramine_manifest is not None:
        raise UsageError("--sigstruct and --gramine-manifest: both give MRENCLAVE; need one of them")
    key = _signing_key(builder, builder_key)
    found: list[Computed] = []
    if ovmf is not None:
        features = _integer(guest_features)
        guest = SnpGuest(ovmf, vcpus, vcpu_type, kernel, initrd, append, features, str(vmm))
        found.append(measure_snp(guest))
    elif any(value is not None for value in (kernel, initrd, append)):
        raise UsageError("--kernel, --initrd and --append go with --ovmf")
    if event_log is not None:
        found.append(from_event_log(event_log, tuple(sorted(set(register or (0, 1, 2, 3))))))
    if sigstruct is not None:
        found.append(from_sigstruct(sigstruct))
    if gramine_manifest is not None:
        found.append(from_gramine(gramine_manifest))
    if manifest is not None:
        found.append(_workload(manifest))
    if simulator:
        found.append(measure_runtime())
    if not found:
        raise ReferenceEmptyError("reference values: nothing was given to compute any from")
    now = datetime.now(UTC).replace(microsecond=0)
    reference = _merged(name, found, now, now + timedelta(days=days), key)
    token = sign_reference(reference, key)
    if out is not None:
        out.write_text(token + "\n", encoding="ascii")
        output.say(f"wrote {out}, signed by {key.thumbprint}")
    value = {**reference.to_json(), "jws": token}
    output.data(value, token if out is None else lambda: _page(reference))
    if out is None and not output.is_json:
        print(_page(reference), file=sys.stderr, flush=True)
    if "simulator.measurement" in reference.values:
        output.simulated("measurement: it protects nothing")


@app.command(
    epilog=epilog(
        "casemate reference diff runtime-0.1.jws runtime-0.2.jws",
        "casemate reference diff runtime-0.2.jws quote.bin",
        exits={0: "shown, whether anything changed or not", 1: "refused; or with --exit-code, something changed"},
    )
)
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Signed reference values.", show_default=False)],
    new: Annotated[
        Path, typer.Argument(metavar="NEW", help="Others; or evidence to hold against OLD.", show_default=False)
    ],
    builder: BuilderOption = None,
    builder_key: Annotated[
        Path | None, typer.Option("--builder-key", metavar="FILE", help="The builder's key: who must have signed.")
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when something changed.")] = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Show in words what changed between two builds, and which inputs changed it; or how evidence differs.

    Signatures are verified. Without --builder they only show who signed; evidence is not verified here at all."""
    output = Output(format)
    trusted = _known_builder(builder, builder_key)
    before = open_reference(_text(old), builder=trusted)
    content = _read(new)
    is_reference = _is_reference(content)
    after = open_reference(content.decode("ascii"), builder=trusted) if is_reference else _evidence(new, content)
    found = changes(before, after)
    if not is_reference:
        found = [one for one in found if one.kind == "value" and one.after is not None and one.before is not None]
        output.say("the evidence is not verified here; `casemate attest verify` does that")
    for one in (before, after):
        if one.builder is not None:
            output.say(f"{one.name}: signed by {one.builder_thumbprint} on {one.issued.date().isoformat()}")
    value = {"old": before.name, "new": after.name, "changed": bool(found), "changes": [c.to_json() for c in found]}
    output.data(value, lambda: "\n".join(c.text() for c in found) or "nothing changed")
    raise typer.Exit(1 if found and exit_code else 0)


@app.command(
    epilog=epilog(
        "casemate reference policy runtime-0.2.jws --builder hospital > runtime.yaml",
        exits={1: "refused: another builder, or changed", 3: "undecided: the reference values have expired"},
    )
)
def policy(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="Signed values.", show_default=False)],
    builder: BuilderOption = None,
    builder_key: Annotated[
        Path | None, typer.Option("--builder-key", metavar="FILE", help="The builder's key: who must have signed.")
    ] = None,
    platform: Annotated[PolicyPlatform | None, typer.Option("--platform", help="When there are several.")] = None,
    mrtd: Annotated[
        str | None, typer.Option("--mrtd", metavar="HEX", help="TDX: of the firmware; RTMRs are its word alone.")
    ] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Print an appraisal policy that pins signed reference values. Their builder has to be named."""
    output = Output(format)
    trusted = _known_builder(builder, builder_key)
    if trusted is None:
        raise ReferenceBuilderUnknownError("no builder was named, so that nobody vouches for the values")
    found = open_reference(_text(reference), builder=trusted, now=datetime.now(UTC))
    text = policy_yaml(found, None if platform is None else str(platform), None if mrtd is None else mrtd.lower())
    output.data({"reference": found.name, "yaml": text}, text.rstrip("\n"))
    if platform is PolicyPlatform.SIMULATOR or "allow_simulated: true" in text:
        output.simulated("evidence is what this policy accepts")


# -- keys --------------------------------------------------------------------------------------------------------------
def _signing_key(name: str | None, path: Path | None) -> KeyPair:
    if (name is None) == (path is None):
        raise UsageError("need one of --builder NAME and --builder-key FILE: reference values are signed")
    return KeyPair.from_pem(_read(path)) if path is not None else identities.load(Settings.load(), name or "")


def _known_builder(name: str | None, path: Path | None) -> Jwk | None:
    if name is None and path is None:
        return None
    return _signing_key(name, path).public


# -- putting together --------------------------------------------------------------------------------------------------
def _merged(name: str, found: list[Computed], issued: datetime, expires: datetime, key: KeyPair) -> Reference:
    from importlib.metadata import version

    merged = Computed({}, (), {}, {"casemate": version("casemate")})
    for one in found:
        merged = Computed(
            merged.values | one.values,
            merged.inputs + one.inputs,
            merged.parameters | one.parameters,
            merged.tools | one.tools,
        )
    return Reference(name, merged.values, merged.inputs, merged.parameters, merged.tools, issued, expires, key.public)


def _workload(path: Path) -> Computed:
    content = _read(path, MAX_MANIFEST_SIZE)
    found = WorkloadManifest.parse(content)
    return Computed(
        {"workload": found.digest()}, (Input("workload manifest", path.name, sha256_hex(content), len(content)),)
    )


def _evidence(path: Path, content: bytes) -> Reference:
    """What evidence shows, as if it were reference values; raises ``ReferenceMalformedError`` for what is neither."""
    judgement = appraise_stored(content, now=datetime.now(UTC))
    values = {} if judgement.claims is None else values_of_claims(judgement.claims)
    if not values:
        raise ReferenceMalformedError(f"{path}: neither signed reference values nor evidence that has any")
    return Reference(path.name, values)


def _is_reference(content: bytes) -> bool:
    try:
        return peek_jws_header(content.decode("ascii").strip()).get("typ") == REFERENCE_TYPE
    except (UnicodeDecodeError, SignatureInvalidError):
        return False


# -- files -------------------------------------------------------------------------------------------------------------
def _read(path: Path, limit: int = MAX_STORED_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileMissingError(f"{path}: not found, or not a file") from None


def _text(path: Path) -> str:
    return _read(path).decode("utf-8", "replace")


def _integer(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise ReferenceInputError(f"--guest-features {text[:40]!r}: need a number such as 0x1")
    return value


# -- showing -----------------------------------------------------------------------------------------------------------
def _page(reference: Reference) -> str:
    rows: list[tuple[str, str]] = [(NAMES[name], value) for name, value in sorted(reference.values.items())]
    rows += [(f"input {one.role}", f"{one.name}, {one.size} bytes, sha256 {one.sha256}") for one in reference.inputs]
    rows += [(f"parameter {name}", value) for name, value in sorted(reference.parameters.items())]
    rows += [(f"tool {name}", value) for name, value in sorted(reference.tools.items())]
    rows.append(("good until", reference.expires.isoformat()))
    return table(rows, (reference.name, ""))
