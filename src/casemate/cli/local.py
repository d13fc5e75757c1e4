"""Bring up and take down the embedded broker and the simulated TEE host of this machine."""

from __future__ import annotations

import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from casemate.cli import identities, services
from casemate.cli.errors import PortInUseError
from casemate.cli.policy import Pinned, pin_runtime
from casemate.cli.services import BROKER, TEE_HOST, Service
from casemate.errors import CasemateError, UsageError
from casemate.files import write_whole
from casemate.settings import Settings

__all__ = ["Running", "bring_up", "broker_answers", "take_down", "tee_host_answers"]

_BROKER_MODULE = "casemate.broker.serve"
_TEE_HOST_MODULE = "casemate.attestation.platforms.simulator.host"


@dataclass(frozen=True)
class Running:
    """What runs after ``bring_up``, and which of it was started just now."""

    settings: Settings
    tee_host: Service
    broker: Service | None  # None: the broker is on another machine
    started: tuple[str, ...]
    pinned: Pinned


def broker_answers(settings: Settings, timeout: float = 2.0) -> bool:
    """Whether the broker answers at its address, with a certificate of its own authority."""
    with suppress(OSError, urllib.error.URLError, ValueError):
        context = ssl.create_default_context(cafile=str(settings.broker_ca))
        address = f"{settings.broker_url}/v1/health"
        with urllib.request.urlopen(address, timeout=timeout, context=context) as answer:  # noqa: S310  (https)
            return bool(answer.status == 200)
    return False


def tee_host_answers(settings: Settings) -> bool:
    """Whether the simulated TEE host answers on its launcher socket."""
    from casemate.attestation.platforms.simulator.client import LauncherClient

    with suppress(CasemateError, OSError):
        LauncherClient(settings.tee_socket).ping()
        return True
    return False


def bring_up(
    settings: Settings,
    *,
    port: int | None = None,
    audiences: Sequence[str] | None = None,
    say: Callable[[str], None],
    tied: bool = False,
) -> Running:
    """Set up what is missing and start what does not run; wait until both answer. Doing it again changes nothing.

    ``tied``: the processes end with this one. Whatever goes wrong, what this call started is stopped again.
    Raises ``PortInUseError``, ``StartFailedError`` and what setting up a broker raises."""
    settings.prepare()
    settings = _with_audiences(_with_port(settings, port), audiences)
    started: list[str] = []
    try:
        with services.exclusive(settings):
            tee_host = services.find(settings, TEE_HOST)
            if tee_host is None:
                say("starting the simulated TEE host")
                tee_host = _start_tee_host(settings, tied)
                started.append(TEE_HOST)
            broker: Service | None = None
            if settings.broker_is_local:
                trust_changed = _initialise_broker(settings)
                broker = services.find(settings, BROKER)
                if broker is not None and trust_changed:
                    say("the simulator's collateral was renewed; starting the broker anew")
                    services.stop(settings, BROKER)
                    broker = None
                if broker is None:
                    say("starting the broker")
                    broker = _start_broker(settings, tied)
                    started.append(BROKER)
            settings.save()
            pinned = pin_runtime(settings)
    except BaseException:
        for name in reversed(started):
            services.stop(settings, name)
        raise
    return Running(settings, tee_host, broker, tuple(started), pinned)


def take_down(settings: Settings) -> list[Service]:
    """Stop exactly what ``bring_up`` started; gives what was stopped."""
    if not settings.run_dir.is_dir():
        return []
    with services.exclusive(settings):
        stopped = [services.stop(settings, name) for name in services.SERVICES]
    return [service for service in stopped if service is not None]


def _with_port(settings: Settings, port: int | None) -> Settings:
    """The settings with the broker on ``port`` (0: a free one), when one was asked for."""
    if port is None:
        return settings
    if not settings.broker_is_local:
        raise UsageError(f"--port: the broker in config.json is {settings.broker_url}, not one on this machine")
    if services.find(settings, BROKER) is not None:
        if port in (0, settings.broker_port):
            return settings
        raise UsageError(f"the broker runs already, at {settings.broker_url}; stop it first with `casemate down`")
    return replace(settings, broker_url=f"https://127.0.0.1:{port or _free_port()}")


def _with_audiences(settings: Settings, audiences: Sequence[str] | None) -> Settings:
    """The settings with the services that tokens are for, when some were named; an empty name forgets them."""
    if audiences is None:
        return settings
    wanted = tuple(dict.fromkeys(name for name in audiences if name))
    if not settings.broker_is_local:
        raise UsageError(f"--audience: the broker in config.json is {settings.broker_url}, not one on this machine")
    if wanted != settings.audiences and services.find(settings, BROKER) is not None:
        raise UsageError("--audience: the broker runs already with others; stop it first with `casemate down`")
    return replace(settings, audiences=wanted)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise UsageError(f"port {port}: only root may listen below 1024; choose a higher one") from None
        except OSError:
            raise PortInUseError(f"another process listens on 127.0.0.1 port {port}") from None


def _start_tee_host(settings: Settings, tied: bool) -> Service:
    if settings.broker_is_local and services.find(settings, BROKER) is None:
        _require_free(settings.broker_port)  # before anything is started
    return services.start(
        settings,
        TEE_HOST,
        _TEE_HOST_MODULE,
        ["--state", str(settings.tee_dir), "--socket", str(settings.tee_socket)],
        lambda: tee_host_answers(settings),
        tied=tied,
    )


def _start_broker(settings: Settings, tied: bool) -> Service:
    _require_free(settings.broker_port)
    return services.start(
        settings,
        BROKER,
        _BROKER_MODULE,
        [
            *("--state", str(settings.broker_dir)),
            *("--port", str(settings.broker_port)),
            *("--collateral", str(settings.home / "collateral")),
            *(part for audience in settings.audiences for part in ("--audience", audience)),
        ],
        lambda: broker_answers(settings),
        tied=tied,
    )


def _initialise_broker(settings: Settings) -> bool:
    """Set the broker up and give it the simulator's trust anchor; whether the anchor or collateral changed."""
    from casemate.attestation.platforms.simulator.state import COLLATERAL_FILES, ROOT_FILE
    from casemate.broker.setup import initialise

    admin = identities.admin(settings)
    if not (settings.broker_dir / "broker.db").exists() or not (settings.broker_dir / "root.key.json").exists():
        initialise(settings.broker_dir, admin.public)
    trust = settings.broker_dir / "trust"
    (trust / "collateral").mkdir(mode=0o700, parents=True, exist_ok=True)
    copies = {ROOT_FILE: trust / "simulator_root.der"}
    copies |= {name: trust / "collateral" / f"simulator-{name}" for name in COLLATERAL_FILES.values()}
    changed = [_copy_if_new(settings.tee_dir / name, target) for name, target in copies.items()]
    return any(changed)


def _copy_if_new(source: Path, target: Path) -> bool:
    if not source.exists() or (target.exists() and target.read_bytes() == source.read_bytes()):
        return False
    write_whole(target, source.read_bytes(), mode=0o644)
    return True
