"""A program of one process that asks the agent itself, or reads through fsspec: no cluster, no settings."""

from __future__ import annotations

from casemate.engines.command import expand
from casemate.engines.errors import EngineSettingsError
from casemate.model import Role
from casemate.workload.manifest import WorkloadManifest
from casemate.workload.profile import Launch, RunContext
from casemate.workload.session import AttestedSession

__all__ = ["PlainProfile"]


class PlainProfile:
    """Starts the command with the agent's socket in its environment, and the bundle on Python's path."""

    def check(self, manifest: WorkloadManifest, role: Role) -> None:
        """Raise ``EngineSettingsError``: this engine has no settings and one role."""
        if manifest.engine_settings:
            raise EngineSettingsError(f"engine plain: unknown setting {min(manifest.engine_settings)!r}")
        if role not in (Role.TASK, Role.DRIVER):
            raise EngineSettingsError(f"engine plain: has no role {role}")

    def certificate_names(self, manifest: WorkloadManifest, role: Role) -> tuple[str, ...]:
        return ()

    def prepare(self, session: AttestedSession, context: RunContext) -> Launch:
        environment = {**context.base_environment, "PYTHONPATH": str(session.bundle_dir)}
        return Launch(expand(session, environment), environment, session.manifest.working_directory)

    def renewed(self, session: AttestedSession) -> None:
        """The program holds no certificate."""
