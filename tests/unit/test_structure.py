"""The shape of the code, kept by walking it: which way imports point, what a decision may touch, how errors look."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import casemate
from casemate.errors import CasemateError, error_classes

SOURCE = Path(casemate.__file__).parent
ROOT = SOURCE.parent.parent
ERROR_PAGE = ROOT / "docs" / "reference" / "errors.md"
MAX_LINES = 500

# Package -> packages of ours that it may import. "*" is everything. A name missing here is a failure, so that a new
# package has to choose its place.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "model": {"errors"},
    "settings": {"errors", "model", "files"},
    "https": set(),
    "files": set(),
    "crypto": {"errors", "model"},
    "attestation": {"errors", "model", "files", "crypto"},
    "data": {"errors", "model", "files", "crypto"},
    "workload": {"errors", "model", "files", "https", "crypto", "attestation", "data"},
    "broker": {"errors", "model", "files", "https", "crypto", "attestation"},
    "engines": {"errors", "model", "files", "crypto", "attestation", "data", "workload"},
    "bench": {"*"},
    "demo": {"*"},
    "cli": {"*"},
    "__init__": set(),
    "__main__": {"cli"},
}
# An arrow against the grain that is allowed, and why.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("workload/run.py", "engines"): "`casemate run` picks the engine profile by name, at the last moment",
}

# One event that two packages name, neither of which may import the other. Branch and HTTP status have to agree.

# Decisions: their inputs are bytes, collateral and the time; network, disk and clock live one layer out.
PURE = (
    "errors.py",
    "model.py",
    "crypto/*.py",
    "attestation/appraise.py",
    "attestation/binding.py",
    "attestation/claims.py",
    "attestation/endorsements.py",
    "attestation/errors.py",
    "attestation/evidence.py",
    "attestation/collateral/amd.py",
    "attestation/collateral/importing.py",
    "attestation/collateral/intel.py",
    "attestation/collateral/pieces.py",
    "attestation/collateral/sources.py",
    "attestation/policy.py",
    "attestation/reference.py",
    "attestation/stored*.py",
    "attestation/token.py",
    "attestation/trust.py",
    "attestation/platforms/intel/*.py",
    "attestation/platforms/sgx/*.py",
    "attestation/platforms/snp/*.py",
    "attestation/platforms/tdx/*.py",
    "broker/decisions.py",
    "broker/release.py",
    "broker/grants.py",
    "broker/challenges.py",
    "broker/merkle.py",
    "data/format.py",
    "data/manifest.py",
    "workload/manifest.py",
)
FORBIDDEN_MODULES = {
    "aiohttp",
    "asyncio",
    "fcntl",
    "glob",
    "http",
    "httpx",
    "io",
    "multiprocessing",
    "pathlib",
    "requests",
    "select",
    "selectors",
    "shutil",
    "socket",
    "sqlalchemy",
    "sqlite3",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "uvicorn",
}
FORBIDDEN_CALLS = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "open"}
ALLOWED_OS = {"urandom"}  # randomness is neither network, disk nor clock
ALLOWED_PURE_IMPORTS = {"urllib.parse"}


def _files() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if "__pycache__" not in path.parts)


def _id(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _package(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that ``path`` imports, wherever in the file, with its line. Type-checking imports count too."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_id(path)}:{node.lineno}: relative import; write the full name"
            assert node.module is not None
            yield node.lineno, node.module
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def _pure_files() -> list[Path]:
    return sorted({path for pattern in PURE for path in SOURCE.glob(pattern)})


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return ""


def _all_error_classes() -> list[type[CasemateError]]:
    for path in _files():
        if any(line.startswith("    code = ") for line in path.read_text(encoding="utf-8").splitlines()):
            importlib.import_module(".".join(("casemate", *path.relative_to(SOURCE).with_suffix("").parts)))
    return [cls for cls in dict.fromkeys(error_classes()) if cls.__module__.startswith("casemate.")]


@pytest.mark.parametrize("path", _files(), ids=_id)
def test_imports_point_one_way(path: Path) -> None:
    package = _package(path)
    assert package in MAY_IMPORT, f"{package} has no place in MAY_IMPORT"
    allowed = MAY_IMPORT[package]
    wrong = []
    for line, module in _imports(path):
        parts = module.split(".")
        if parts[0] != "casemate" or len(parts) < 2 or "*" in allowed:
            continue
        target = parts[1]
        if (
            target != "__version__"
            and target != package
            and target not in allowed
            and (_id(path), target) not in EXCEPTIONS
        ):
            wrong.append(f"{_id(path)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", _pure_files(), ids=_id)
def test_decisions_touch_no_network_disk_or_clock(path: Path) -> None:
    wrong = []
    for line, module in _imports(path):
        top = module.split(".")[0]
        if module in ALLOWED_PURE_IMPORTS or any(module.startswith(f"{ok}.") for ok in ALLOWED_PURE_IMPORTS):
            continue
        if top in FORBIDDEN_MODULES or module in ("urllib.request", "importlib.resources"):
            wrong.append(f"{_id(path)}:{line} imports {module}")
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call) and _dotted(node.func).removeprefix("datetime.") in FORBIDDEN_CALLS:
            wrong.append(f"{_id(path)}:{node.lineno} calls {_dotted(node.func)}")
        if isinstance(node, ast.Attribute) and _dotted(node.value) == "os" and node.attr not in ALLOWED_OS:
            wrong.append(f"{_id(path)}:{node.lineno} uses os.{node.attr}")
    assert not wrong, "\n".join(wrong)


def test_only_crypto_and_the_verifiers_import_a_cipher() -> None:
    wrong = [
        f"{_id(path)}:{line} imports {module}"
        for path in _files()
        if _package(path) != "crypto"
        for line, module in _imports(path)
        if module.startswith(("cryptography.hazmat.primitives.ciphers", "Crypto.", "nacl."))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", _files(), ids=_id)
def test_no_file_grows_past_its_second_idea(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{_id(path)} has {lines} lines; look for the second idea in it"


@pytest.mark.parametrize("path", [p for p in _files() if p.name not in ("__init__.py", "__main__.py")], ids=_id)
def test_public_names_are_those_in_all(path: Path) -> None:
    tree = _tree(path)
    listed: list[str] | None = None
    defined: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(_dotted(t) == "__all__" for t in node.targets):
            listed = [str(value) for value in ast.literal_eval(node.value)]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {_dotted(target) for target in node.targets}
        elif isinstance(node, ast.AnnAssign):
            defined.add(_dotted(node.target))
    if _is_migration(path):
        return
    assert listed is not None, f"{_id(path)} has no __all__"
    assert len(listed) == len(set(listed)), f"{_id(path)} lists a name twice"
    imported = {alias.asname or alias.name for n in tree.body if isinstance(n, ast.ImportFrom) for alias in n.names}
    unknown = set(listed) - defined - imported
    assert not unknown, f"{_id(path)} lists {sorted(unknown)} but does not define them"


def _is_migration(path: Path) -> bool:
    """Alembic loads its scripts by file name and reads fixed names from them."""
    return "migrations" in path.parts


@pytest.mark.parametrize("path", _files(), ids=_id)
def test_every_module_says_what_it_promises(path: Path) -> None:
    if path.read_text(encoding="utf-8").strip():
        assert ast.get_docstring(_tree(path)), f"{_id(path)} has no docstring"


def test_error_codes_are_unique() -> None:
    seen: dict[str, type[CasemateError]] = {}
    for cls in _all_error_classes():
        assert "code" in vars(cls), f"{cls.__qualname__} inherits its code"
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", cls.code), f"{cls}: code {cls.code!r}"
        other = seen.setdefault(cls.code, cls)
        assert other is cls, f"{cls} and {other} share the code {cls.code}"


def test_every_error_says_its_cause_and_its_fix() -> None:
    branches = {cls.__name__ for cls in _all_error_classes() if cls.__module__ == "casemate.errors"}
    for cls in _all_error_classes():
        where = f"{cls.__module__}.{cls.__qualname__}"
        assert cls.__doc__, f"{where} has no docstring"
        assert cls.fix.strip(), f"{where} has no fix"
        if cls.__name__ not in branches:
            assert "fix" in vars(cls), f"{where} inherits its fix"
        assert cls.exit_status in (1, 2, 3), f"{where}: exit status {cls.exit_status}"


def test_every_error_code_is_on_the_reference_page() -> None:
    page = ERROR_PAGE.read_text(encoding="utf-8")
    missing = [cls.code for cls in _all_error_classes() if f"`{cls.code}`" not in page]
    assert not missing, f"run scripts/generate_reference.py: {missing} not in {ERROR_PAGE.name}"


def test_the_checks_above_find_what_they_look_for(tmp_path: Path) -> None:
    """A checker that sees nothing passes everything: feed it a file that breaks its rules."""
    bad = tmp_path / "bad.py"
    bad.write_text("import socket\nfrom casemate.broker import app\nimport datetime\nx = datetime.datetime.now()\n")
    assert [module for _, module in _imports(bad)] == [
        "socket",
        "casemate.broker",
        "casemate.broker.app",
        "datetime",
    ]
    calls = [_dotted(n.func).removeprefix("datetime.") for n in ast.walk(_tree(bad)) if isinstance(n, ast.Call)]
    assert calls == ["datetime.now"]
    assert _pure_files(), "no decision module was found"
