"""``casemate submit``: run an unchanged program in TEEs, on encrypted data."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from casemate.attestation.platforms.simulator.client import LauncherClient
from casemate.cli import identities
from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.checks import java_command
from casemate.cli.errors import JavaMissingError, NotRunningError
from casemate.cli.failure import print_outcome
from casemate.cli.granting import Terms, bring, by_owner, make_grant, parse_duration, recipients_of, sentence
from casemate.cli.jobspec import Engine, Job, Launcher, manifest_of
from casemate.cli.options import (
    Arguments,
    ColumnsOption,
    ConfOption,
    EngineOption,
    EnvOption,
    FilesOption,
    LauncherOption,
    MasterOption,
    MountOption,
    PageCacheOption,
    Program,
    ReadOption,
    StageOption,
    WorkersOption,
    WriteOption,
)
from casemate.cli.output import Format, Output
from casemate.cli.owner import Owners
from casemate.cli.policy import local_policy, read_policy
from casemate.model import Access, DatasetName
from casemate.settings import Settings
from casemate.workload.bundle import write_bundle
from casemate.workload.manifest import WorkloadManifest
from casemate.workload.submit import Outcome
from casemate.workload.submit import submit as run_job

__all__ = ["app"]

app = subcommand()


@app.command(
    epilog=epilog(
        "casemate submit job.py vault/patients vault/report \\",
        "    --read hospital/patients=vault/patients --write hospital/report=vault/report",
        "casemate submit --engine plain --read a/b=vault/b tool.py -- --depth 3",
        "casemate submit --engine plain --mount --read a/b=vault/b count.sh vault/b",
        "casemate submit --no-grant --master standalone --workers 2 --read a/b=vault/b job.py vault/b",
        exits={0: "the program ended well", 1: "refused, or the program or something here failed"},
    )
)
def submit(
    program: Program,
    arguments: Arguments = None,
    read: ReadOption = None,
    write: WriteOption = None,
    columns: ColumnsOption = None,
    engine: EngineOption = Engine.SPARK,
    launcher: LauncherOption = Launcher.SPARK_SUBMIT,
    master: MasterOption = "local[*]",
    workers: WorkersOption = 2,
    conf: ConfOption = None,
    files: FilesOption = None,
    env: EnvOption = None,
    mount: MountOption = False,
    stage: StageOption = False,
    page_cache: PageCacheOption = False,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", metavar="FILE", help="Appraisal policy of the grants [default: local-simulated]."),
    ] = None,
    grant_for: Annotated[str, typer.Option("--grant-for", metavar="TIME", help="How long the grants are good.")] = "1h",
    no_grant: Annotated[
        bool, typer.Option("--no-grant", help="Sign nothing; rely on grants that owners have made.")
    ] = False,
    format: FormatOption = Format.TEXT,
) -> int:
    """Run PROGRAM in SIMULATED TEEs. Its files below the zones are decrypted and encrypted inside; it stays as it is.

    For each owner whose identity is on this machine, a grant for this one program and one job is signed and announced;
    keys of datasets to write are made when they do not exist. With other owners, existing grants have to do.
    The program's own output goes to stdout and stderr; with --format json all of it goes to stderr."""
    output, settings = Output(format), Settings.load()
    job = Job(
        program,
        tuple(arguments or ()),
        tuple(read or ()),
        tuple(write or ()),
        engine,
        launcher,
        master,
        workers,
        tuple(conf or ()),
        tuple(files or ()),
        tuple(env or ()),
        tuple(columns or ()),
        mount,
        stage,
        page_cache,
    )
    duration = parse_duration(grant_for)
    if engine is Engine.SPARK and java_command() is None:
        raise JavaMissingError("no java was found (JAVA_HOME, PATH)")
    manifest, sources = manifest_of(job, settings)
    machine = LauncherClient(settings.tee_socket)
    if not settings.tee_socket.exists():
        raise NotRunningError("the simulated TEE host does not run")
    machine.ping()
    if not no_grant:
        now = datetime.now(UTC)
        chosen, text = read_policy(policy) if policy else local_policy(settings)
        terms = Terms(
            workloads=(manifest.digest(),),
            policy=chosen,
            policy_yaml=text,
            not_before=now,
            not_after=now + duration,
            recipients=recipients_of(manifest.datasets_of("default")),
            max_releases=1,
        )
        _sign(output, settings, manifest, terms)
    output.simulated(f"running {program.name} in a simulated TEE, workload {manifest.digest()[:16]}…")
    with tempfile.TemporaryDirectory(prefix="casemate-bundle-") as bundle:
        write_bundle(Path(bundle), manifest, sources)
        stdio = (0, 2, 2) if output.is_json else (0, 1, 2)
        outcome = run_job(manifest, Path(bundle), machine, _Talk(output).hear, stdio=stdio)
    return _tell(output, manifest, outcome)


def _sign(output: Output, settings: Settings, manifest: WorkloadManifest, terms: Terms) -> None:
    """A grant of every owner at hand, made and brought to the broker before anything is started."""
    datasets: Mapping[DatasetName, Access] = manifest.datasets_of("default")
    with Owners(settings) as owners:
        for owner, own in by_owner(datasets).items():
            if not identities.exists(settings, owner):
                output.say(f"the identity {owner} is not on this machine; relying on a grant that {owner} has made")
                continue
            for dataset, access in own.items():
                if not access.can_read and not owners.has_dataset(dataset):
                    owners.client(owner).create_dataset(dataset)
                    output.say(f"created {dataset}, key version 1")
            grant = make_grant(owner, own, terms)
            bring(owners, grant, terms)
            output.say(f"granted as {owner}: {sentence(grant)}")
        if terms.policy.allow_simulated:
            output.simulated(f"policy {terms.policy.name} accepts simulated evidence")


class _Talk:
    """Says what the members of a job report, where a person is looking."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def hear(self, event: Mapping[str, Any]) -> None:
        if event.get("phase") == "attested":
            role = event.get("role") or event.get("member")
            self._output.say(f"attested: {role} ({event.get('member')})")


def _tell(output: Output, manifest: WorkloadManifest, outcome: Outcome) -> int:
    value = {**asdict(outcome), "workload": manifest.digest(), "simulated": True, "exit_status": outcome.exit_status}
    output.data(value)
    if outcome.outcome == "done":
        output.say(f"done: {manifest.name} ({outcome.job}, {outcome.attestations} attestation(s))")
    else:
        print_outcome(outcome.outcome, outcome.code, outcome.message, outcome.hint, outcome.refusal_id)
    return outcome.exit_status
