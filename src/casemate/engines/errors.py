"""What can be wrong with an engine or with the settings a workload gives it."""

from __future__ import annotations

from casemate.errors import FailedError, RefusedError, UsageError

__all__ = ["EngineSettingsError", "EngineUnavailableError", "EngineUnknownError", "ProtectedSettingError"]


class EngineUnknownError(UsageError):
    """The workload names an engine that this version of Casemate does not know."""

    code = "engine-unknown"
    fix = "Use one of the engines that the message names."


class EngineSettingsError(UsageError):
    """The workload's engine settings have an unknown member or a value of the wrong kind."""

    code = "engine-settings"
    fix = "Correct the setting that the message names."


class EngineUnavailableError(FailedError):
    """The engine, or the Java it needs, is not installed where the workload should run."""

    code = "engine-unavailable"
    fix = "Install what the message names: `pip install 'casemate[spark]'`, and a Java 17 runtime."


class ProtectedSettingError(RefusedError):
    """The workload sets something that decides how its data is protected; only Casemate sets that."""

    code = "protected-setting"
    fix = "Remove the setting; Casemate sets it for every job."
