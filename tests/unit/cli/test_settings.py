"""Settings: what is misspelt is an error, what is missing is the default, nothing is made by reading."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from casemate.settings import ConfigInvalidError, Settings


def load(home: Path) -> Settings:
    return Settings.load({"CASEMATE_HOME": str(home)})


def test_an_untouched_home_has_the_defaults_and_is_not_made_by_reading(tmp_path: Path) -> None:
    settings = load(tmp_path / "home")
    assert settings.broker_url == "https://127.0.0.1:7443"
    assert settings.broker_ca == tmp_path / "home" / "broker" / "ca.pem"
    assert settings.tee_socket == tmp_path / "home" / "run" / "tee-host.sock"
    assert not (tmp_path / "home").exists()


def test_the_default_home_is_in_the_users_directory() -> None:
    assert Settings.load({"HOME": "/nowhere"}).home == Path("~/.casemate").expanduser()


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    settings = Settings.at(tmp_path / "home")
    settings.save()
    assert load(tmp_path / "home") == settings
    assert json.loads(settings.config_path.read_text())["broker"]["ca"] == "broker/ca.pem"


def test_audiences_are_kept_and_have_to_be_a_list(tmp_path: Path) -> None:
    settings = replace(Settings.at(tmp_path), audiences=("https://one.example", "https://two.example"))
    settings.save()
    assert load(tmp_path) == settings
    settings.config_path.write_text('{"broker": {"audience": "https://one.example"}}')
    with pytest.raises(ConfigInvalidError, match=r"broker\.audience: need a list"):
        load(tmp_path)


def test_directories_are_private(tmp_path: Path) -> None:
    settings = Settings.at(tmp_path / "home")
    settings.prepare()
    for path in (settings.home, settings.identities_dir, settings.run_dir):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_absolute_paths_stay_absolute(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"broker": {"ca": "/etc/broker.pem"}}')
    assert load(tmp_path).broker_ca == Path("/etc/broker.pem")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("[]", "object"),
        ('{"brokers": {}}', "brokers"),
        ('{"broker": {"uri": "https://x:1"}}', "broker.uri"),
        ('{"broker": 3}', "broker"),
        ('{"broker": {"url": ""}}', "broker.url"),
        ('{"broker": {"url": 7}}', "broker.url"),
        ('{"broker": {"url": "http://x:1"}}', "https://"),
        ('{"broker": {"url": "https://x:1/path"}}', "https://"),
        ('{"broker": {"url": "https://x:port"}}', "broker.url"),
        ('{"tee_host": {"sock": "x"}}', "tee_host.sock"),
    ],
)
def test_a_misspelt_setting_is_an_error_that_names_it(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigInvalidError, match=r"config\.json") as caught:
        load(tmp_path)
    assert named in caught.value.message


def test_a_relative_home_is_refused() -> None:
    with pytest.raises(ConfigInvalidError, match="absolute"):
        Settings.load({"CASEMATE_HOME": "state"})


@pytest.mark.parametrize(
    ("url", "local"), [("https://127.0.0.1:1", True), ("https://localhost:1", True), ("https://broker.example", False)]
)
def test_only_a_loopback_broker_is_the_embedded_one(tmp_path: Path, url: str, local: bool) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"broker": {"url": url}}))
    assert load(tmp_path).broker_is_local is local
