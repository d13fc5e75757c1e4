"""On the Python path of a Spark driver: the gateway between Python and the JVM (Py4J) speaks TLS.

Python imports a module of this name at its start, before the program. It waits until Py4J is imported, if ever, and
then gives Py4J's own TLS parameter its value. The JVM's side is ``JvmAgent`` in the jar: without this one, the two
do not connect. Then whatever other ``sitecustomize`` there is gets its turn.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import ssl
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any

__all__ = ["install"]

_MODULE = "py4j.java_gateway"
_DIRECTORY_VARIABLE = "CASEMATE_GATEWAY_TLS"  # holds gateway.pem (key, certificate) and authority.pem


def _context(protocol: int) -> ssl.SSLContext:
    directory = os.environ[_DIRECTORY_VARIABLE]
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(os.path.join(directory, "gateway.pem"))  # noqa: PTH118 - keep this start-up light
    context.load_verify_locations(os.path.join(directory, "authority.pem"))  # noqa: PTH118
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _with_tls(init: Callable[..., None], protocol: int) -> Callable[..., None]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if self.ssl_context is None:
            self.ssl_context = _context(protocol)

    return __init__


def _patch(module: Any) -> None:
    parameters, callback = module.GatewayParameters, module.CallbackServerParameters
    parameters.__init__ = _with_tls(parameters.__init__, ssl.PROTOCOL_TLS_CLIENT)
    callback.__init__ = _with_tls(callback.__init__, ssl.PROTOCOL_TLS_SERVER)


class _Patching(Loader):
    """Loads the module as its own loader would, then patches it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _patch(module)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Patching(spec.loader)
        return spec


def _next_sitecustomize() -> None:
    """Run the ``sitecustomize`` that this one stands in front of."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    others = [entry for entry in sys.path if os.path.abspath(entry) != here]  # noqa: PTH100
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def install() -> None:
    """Wait for Py4J, and let the next ``sitecustomize`` run."""
    sys.meta_path.insert(0, _Finder())
    _next_sitecustomize()


if __name__ == "sitecustomize" and _DIRECTORY_VARIABLE in os.environ:
    install()
