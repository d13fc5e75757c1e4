"""``casemate status``: what runs, and what there is."""

from __future__ import annotations

from typing import Any

from casemate.cli import identities, services
from casemate.cli.app import FormatOption, epilog, subcommand
from casemate.cli.local import broker_answers, tee_host_answers
from casemate.cli.output import Format, Output
from casemate.cli.owner import Owners
from casemate.cli.policy import local_policy, runtime_measurement
from casemate.errors import CasemateError, UndecidedError
from casemate.settings import Settings

__all__ = ["app"]

app = subcommand()


@app.command(
    epilog=epilog(
        "casemate status",
        "casemate status --format json",
        exits={0: "broker and TEE host run", 3: "one of them does not"},
    )
)
def status(format: FormatOption = Format.TEXT) -> int:
    """Show the broker, the SIMULATED TEE host, identities on this machine, datasets, and the runtime's measurement."""
    settings = Settings.load()
    value = _look(settings)
    Output(format).data(value, lambda: _text(value))
    return 0 if value["broker"]["answers"] and value["tee_host"]["answers"] else UndecidedError.exit_status


def _look(settings: Settings) -> dict[str, Any]:
    broker, tee_host = (services.find(settings, name) for name in services.SERVICES)
    answers = broker_answers(settings)
    policy = None
    try:
        policy = local_policy(settings)[0]
        pinned = "matches the installed runtime"
    except CasemateError as exc:
        pinned = exc.message
    return {
        "home": str(settings.home),
        "broker": {
            "url": settings.broker_url,
            "answers": answers,
            "pid": broker.pid if broker else None,
            "log": str(services.log_path(settings, services.BROKER)),
        },
        "tee_host": {
            "socket": str(settings.tee_socket),
            "answers": tee_host_answers(settings),
            "pid": tee_host.pid if tee_host else None,
            "simulated": True,
            "log": str(services.log_path(settings, services.TEE_HOST)),
        },
        "policy": {"name": policy.name if policy else None, "state": pinned},
        "runtime_measurement": runtime_measurement(),
        "identities": identities.local_owners(settings),
        "datasets": _datasets(settings) if answers else None,
    }


def _datasets(settings: Settings) -> list[dict[str, Any]]:
    with Owners(settings) as owners:
        rows = [row for name in identities.local_owners(settings) for row in owners.client(name).datasets()]
    return [{"name": row["name"], "version": row["version"]} for row in rows]


def _text(value: dict[str, Any]) -> str:
    broker, tee_host = value["broker"], value["tee_host"]
    lines = [
        f"state      {value['home']}",
        f"broker     {broker['url']}  {_state(broker)}",
        f"tee host   SIMULATED  {_state(tee_host)}",
        f"policy     {value['policy']['name'] or 'none'}  ({value['policy']['state']})",
        f"runtime    {value['runtime_measurement']}",
        f"owners     {', '.join(value['identities']) or 'none on this machine'}",
    ]
    for row in value["datasets"] or []:
        lines.append(f"dataset    {row['name']}  key version {row['version']}")
    return "\n".join(lines)


def _state(service: dict[str, Any]) -> str:
    if not service["answers"]:
        return "does not answer"
    return f"answers (pid {service['pid']})" if service["pid"] else "answers"
