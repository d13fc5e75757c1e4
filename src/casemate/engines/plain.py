"""A program of one process: it asks the agent itself, reads through fsspec, or finds its zones as plain files."""

from __future__ import annotations

import sys

from casemate.engines.command import expand
from casemate.engines.errors import EngineSettingsError
from casemate.model import Role
from casemate.workload.files.mount import PAGE_CACHE
from casemate.workload.manifest import WorkloadManifest
from casemate.workload.profile import Launch, RunContext
from casemate.workload.session import AttestedSession

__all__ = ["PlainProfile"]

_SETTINGS = {"files": ("mount", "stage"), "page_cache": (True, False)}


class PlainProfile:
    """Starts the command with the agent's socket in its environment, and the bundle on Python's path.

    Settings: ``files``: ``mount`` (zones as a file system in the program's own namespace) or ``stage`` (copies in
    private memory); ``page_cache``: whether the kernel may keep what is read through a mount."""

    def check(self, manifest: WorkloadManifest, role: Role) -> None:
        """Raise ``EngineSettingsError`` for an unknown setting or value, or another role than the one there is."""
        settings = manifest.engine_settings
        for name, value in settings.items():
            if name not in _SETTINGS:
                raise EngineSettingsError(f"engine plain: unknown setting {name!r}")
            if not any(value is known or (value == known and isinstance(value, str)) for known in _SETTINGS[name]):
                raise EngineSettingsError(f"engine plain: {name} = {value!r}")
        if "page_cache" in settings and settings.get("files") != "mount":
            raise EngineSettingsError("engine plain: page_cache is for files = mount")
        if role not in (Role.TASK, Role.DRIVER):
            raise EngineSettingsError(f"engine plain: has no role {role}")

    def certificate_names(self, manifest: WorkloadManifest, role: Role) -> tuple[str, ...]:
        return ()

    def prepare(self, session: AttestedSession, context: RunContext) -> Launch:
        environment = {**context.base_environment, "PYTHONPATH": str(session.bundle_dir)}
        argv = expand(session, environment)
        files = session.manifest.engine_settings.get("files")
        if files is not None:
            options = (PAGE_CACHE,) if session.manifest.engine_settings.get("page_cache") else ()
            # -P: nothing that lies in the working directory stands in for a module
            argv = (sys.executable, "-P", "-m", f"casemate.workload.files.{files}", *options, "--", *argv)
        return Launch(argv, environment, session.manifest.working_directory)

    def renewed(self, session: AttestedSession) -> None:
        """The program holds no certificate."""
