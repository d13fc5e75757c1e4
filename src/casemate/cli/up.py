"""``casemate up``: the broker and the simulated TEE host of this machine."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from casemate.cli import services
from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.errors import StartFailedError
from casemate.cli.local import Running, bring_up, take_down
from casemate.cli.output import Format, Output
from casemate.cli.owner import Owners
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand()
_LOOK_SECONDS = 0.3


@app.command(
    epilog=epilog(
        "casemate up",
        "casemate up --port 7444",
        "casemate up --audience https://service.example",
        "CASEMATE_HOME=/srv/casemate casemate up",
        exits={0: "both run", 1: "something could not be started; nothing was left running"},
    )
)
def up(
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Port of the broker; 0 takes a free one. Remembered."),
    ] = None,
    audience: Annotated[
        list[str] | None,
        typer.Option(
            "--audience",
            metavar="URI",
            help="Service that tokens are for, besides the broker; repeatable. Remembered; '' forgets them.",
        ),
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and stop both when this command is stopped.")
    ] = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Set up what is missing, then start the broker and the SIMULATED TEE host, in the background.

    The first call makes the state directory (CASEMATE_HOME, default ~/.casemate): root key, certificates, database, an
    administrator's identity, the simulator's own trust anchor, and a policy that accepts SIMULATED evidence of the
    runtime now installed. Doing it again changes nothing."""
    output = Output(format)
    running = bring_up(Settings.load(), port=port, audiences=audience or None, say=output.say, tied=foreground)
    try:
        with Owners(running.settings) as owners:
            owners.admin().add_policy(running.pinned.yaml)
        _tell(output, running)
        if foreground:
            _stay(running)
    finally:
        if foreground:
            take_down(running.settings)


def _tell(output: Output, running: Running) -> None:
    settings, pinned = running.settings, running.pinned
    if pinned.previous is not None:
        output.warn(
            f"the installed runtime changed: policy {pinned.policy.name} now names {pinned.measurement[:16]}… "
            f"instead of {pinned.previous[:16]}…; grants under the old policy open nothing any more"
        )
    output.simulated("TEE host: programs run in a simulated TEE, which protects nothing from this machine's owner")
    output.say(f"policy {pinned.policy.name} accepts SIMULATED evidence: {pinned.path}")
    value = {
        "home": str(settings.home),
        "broker": {
            "url": settings.broker_url,
            "ca": str(settings.broker_ca),
            "pid": running.broker.pid if running.broker else None,
        },
        "tee_host": {"socket": str(settings.tee_socket), "pid": running.tee_host.pid, "simulated": True},
        "policy": {
            "name": pinned.policy.name,
            "digest": pinned.policy.digest,
            "path": str(pinned.path),
            "measurement": pinned.measurement,
        },
        "started": list(running.started),
    }
    state = "started" if running.started else "was running"
    output.data(value, f"ready: broker {settings.broker_url}, SIMULATED TEE host ({state})")


def _stay(running: Running) -> None:
    """Until one of the two ends, or this process is told to."""
    while True:
        for name in services.SERVICES:
            if (name != services.BROKER or running.broker is not None) and not services.find(running.settings, name):
                raise StartFailedError(f"{name} ended (log: {services.log_path(running.settings, name)})")
        time.sleep(_LOOK_SECONDS)
