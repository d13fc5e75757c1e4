"""Where Casemate keeps its state on this machine, and which broker and TEE host it talks to.

One directory, ``CASEMATE_HOME`` (default ``~/.casemate``, mode 0700); ``config.json`` in it names the broker and the
TEE host. An unknown member of that file is an error: a misspelt setting must not fall back to a default unseen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from casemate.errors import UsageError
from casemate.files import write_whole

__all__ = ["DEFAULT_PORT", "ConfigInvalidError", "Settings"]

DEFAULT_PORT = 7443
_SECTIONS = {"broker": ("url", "ca", "audience"), "tee_host": ("socket",)}
_LISTS = frozenset({"broker.audience"})


class ConfigInvalidError(UsageError):
    """``config.json`` or ``CASEMATE_HOME`` is not of the form it must have."""

    code = "config-invalid"
    fix = "Correct the member the message names; docs/reference/configuration.md lists all of them."


@dataclass(frozen=True)
class Settings:
    """Paths and addresses. Nothing here is created by reading it; ``prepare`` makes the directories."""

    home: Path
    broker_url: str = f"https://127.0.0.1:{DEFAULT_PORT}"
    broker_ca: Path = Path("broker/ca.pem")
    tee_socket: Path = Path("run/tee-host.sock")
    audiences: tuple[str, ...] = ()  # relying parties that the embedded broker's tokens are for, too

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read ``CASEMATE_HOME`` and its ``config.json``; raises ``ConfigInvalidError``. A missing file is no error."""
        environ = os.environ if environ is None else environ
        given = environ.get("CASEMATE_HOME", "")
        if given and not given.startswith(("/", "~")):
            raise ConfigInvalidError(f"CASEMATE_HOME is {given!r}, need an absolute path")
        home = Path(given or "~/.casemate").expanduser()
        defaults = cls.at(home)
        try:
            text = defaults.config_path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return defaults
        except UnicodeDecodeError as exc:
            raise ConfigInvalidError(f"{defaults.config_path}: not UTF-8") from exc
        return _parse(text, defaults)

    @classmethod
    def at(cls, home: Path) -> Settings:
        """The settings of an untouched ``home``."""
        blank = cls(home)
        return replace(blank, broker_ca=home / blank.broker_ca, tee_socket=home / blank.tee_socket)

    @property
    def config_path(self) -> Path:
        return self.home / "config.json"

    @property
    def broker_dir(self) -> Path:
        """State of the embedded broker: database, root key, CA."""
        return self.home / "broker"

    @property
    def tee_dir(self) -> Path:
        """State of the simulated TEE host: its PKI."""
        return self.home / "tee"

    @property
    def identities_dir(self) -> Path:
        return self.home / "identities"

    @property
    def run_dir(self) -> Path:
        """Process records, logs and sockets of what ``casemate up`` started."""
        return self.home / "run"

    @property
    def checkpoint_path(self) -> Path:
        """The last audit checkpoint this machine has seen: what makes a rolled-back database visible."""
        return self.home / "audit-checkpoint.json"

    @property
    def broker_port(self) -> int:
        return urlsplit(self.broker_url).port or 443

    @property
    def broker_is_local(self) -> bool:
        """Whether the broker is the embedded one, whose state lies in ``broker_dir``."""
        return urlsplit(self.broker_url).hostname in ("127.0.0.1", "localhost", "::1")

    def prepare(self) -> None:
        """Make the private directories, mode 0700."""
        for path in (self.home, self.identities_dir, self.run_dir):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self) -> None:
        """Write ``config.json`` in one step; paths below ``home`` are written relative to it."""
        self.prepare()
        broker: dict[str, Any] = {"url": self.broker_url, "ca": self._relative(self.broker_ca)}
        if self.audiences:
            broker["audience"] = list(self.audiences)
        value = {
            "broker": broker,
            "tee_host": {"socket": self._relative(self.tee_socket)},
        }
        write_whole(self.config_path, (json.dumps(value, indent=2) + "\n").encode(), mode=0o644)

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self.home)) if path.is_relative_to(self.home) else str(path)


def _parse(text: str, defaults: Settings) -> Settings:
    where = defaults.config_path
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ConfigInvalidError(f"{where}: not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise ConfigInvalidError(f"{where}: need an object, got {type(value).__name__}")
    for section, members in value.items():
        if section not in _SECTIONS:
            raise ConfigInvalidError(f"{where}: unknown member {section!r}, know {', '.join(_SECTIONS)}")
        if not isinstance(members, dict):
            raise ConfigInvalidError(f"{where}: {section}: need an object, got {type(members).__name__}")
        for name, content in members.items():
            if name not in _SECTIONS[section]:
                known = ", ".join(_SECTIONS[section])
                raise ConfigInvalidError(f"{where}: unknown member {section}.{name}, know {known}")
            if f"{section}.{name}" in _LISTS:
                if not isinstance(content, list) or not all(isinstance(item, str) and item for item in content):
                    raise ConfigInvalidError(f"{where}: {section}.{name}: need a list of non-empty strings")
            elif not isinstance(content, str) or not content:
                raise ConfigInvalidError(f"{where}: {section}.{name}: need a non-empty string, got {content!r}")
    broker, tee_host = value.get("broker", {}), value.get("tee_host", {})
    url = broker.get("url", defaults.broker_url).rstrip("/")
    _check_url(url, where)
    return Settings(
        home=defaults.home,
        broker_url=url,
        broker_ca=defaults.home / broker.get("ca", defaults.broker_ca),
        tee_socket=defaults.home / tee_host.get("socket", defaults.tee_socket),
        audiences=tuple(broker.get("audience", ())),
    )


def _check_url(url: str, where: Path) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsing it raises for what is not a port
    except ValueError as exc:
        raise ConfigInvalidError(f"{where}: broker.url {url!r}: {exc}") from exc
    if parts.scheme != "https" or not parts.hostname or parts.path or parts.query or parts.fragment:
        raise ConfigInvalidError(f"{where}: broker.url is {url!r}, need https://host:port")
