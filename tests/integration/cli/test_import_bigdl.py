"""Moving data of BigDL PPML into a dataset, with the command that its users would type."""

from __future__ import annotations

from pathlib import Path

from tests.support.bigdl_writer import CODES, write_dataset, write_native_file
from tests.support.cli import Cli

FILES = {"part-0.csv": b"id,name\n1,Ada\n", "year=2024/part-1.csv": b"id,name\n2,Grace\n" * 100_000, "empty.csv": b""}


def imported(cli: Cli, name: str, *more: str) -> tuple[str, ...]:
    return ("import-bigdl", name, f"vault/{name}", "--dataset", "hospital/patients", *more)


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_directory_comes_over_whole_and_its_source_stays(services: Cli) -> None:
    write_dataset(services.where / "old", FILES)
    before = content(services.where / "old")
    done = services.ok(*imported(services, "old", "--primary-key", "primary.key"))
    assert "warning: BigDL PPML had no working integrity check" in done.err
    assert content(services.where / "old") == before
    for path in (services.where / "vault" / "old").rglob("*.csv"):
        assert path.read_bytes()[:4] == b"CSMT"
    services.ok("decrypt", "vault/old", "clear")
    assert content(services.where / "clear") == FILES


def test_a_data_key_comes_by_standard_input_and_is_never_shown(services: Cli) -> None:
    write_dataset(services.where / "by-key", {"a.csv": b"rows"})
    command = imported(services, "by-key", "--data-key", "-")
    done = services.run(*command, stdin=CODES + "\n")
    assert done.status == 0, done.err
    assert CODES not in done.out + done.err
    (services.where / "wrong.key").write_text(CODES[::-1])
    wrong = imported(services, "by-key", "--data-key", "wrong.key", "--overwrite")
    services.run(*wrong).refused(1, "bigdl-tampered")
    services.ok("decrypt", "vault/by-key", "clear-by-key")  # what was there stays


def test_one_flipped_bit_that_bigdl_never_noticed_refuses_all_of_it(services: Cli) -> None:
    write_dataset(services.where / "bad", FILES)
    victim = services.where / "bad" / "year=2024" / "part-1.csv.cbc"
    data = bytearray(victim.read_bytes())
    data[1_000_000] ^= 4
    victim.write_bytes(data)
    done = services.run(*imported(services, "bad", "--primary-key", "primary.key")).refused(1, "bigdl-tampered")
    assert "part-1.csv.cbc" in done.err
    assert not (services.where / "vault" / "bad").exists()


def test_the_native_mode_is_taken_with_its_own_warning(services: Cli) -> None:
    (services.where / "native").mkdir()
    write_native_file(services.where / "native" / "a.csv.cbc", b"rows")
    (services.where / "data.key").write_text(CODES)
    done = services.ok(*imported(services, "native", "--data-key", "data.key", "--native-aes-cbc"))
    assert "no MAC at all" in done.err


def test_wrong_uses_are_named(services: Cli) -> None:
    write_dataset(services.where / "mixed", {"a.csv": b"rows"})
    done = services.run(*imported(services, "mixed"))
    assert (done.status, "give --primary-key or --data-key" in done.err) == (2, True)
    services.run(*imported(services, "mixed", "--primary-key", "no.key")).refused(2, "file-missing")
    (services.where / "short.key").write_text("123")
    services.run(*imported(services, "mixed", "--primary-key", "short.key")).refused(2, "bigdl-key")
    (services.where / "mixed" / "readme.txt").write_text("plain")
    done = services.run(*imported(services, "mixed", "--primary-key", "primary.key"))
    assert (done.status, "readme.txt: not a .cbc file" in done.err) == (2, True)
