"""Build hook: compile the Java part against the installed PySpark's jars into ``casemate/jars``."""

from __future__ import annotations

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class JavaBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts ``casemate-spark.jar`` beside the Python code before it is packed."""
