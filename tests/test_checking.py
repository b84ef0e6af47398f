"""`medmllm serve --check` finds what is wrong before anything starts, and changes nothing."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from sqlalchemy import update

from medmllm_plugin.cli import medmllm
from medmllm_plugin.config import Settings, load
from medmllm_plugin.dicom_bridge import checking
from medmllm_plugin.dicom_bridge.checking import Checked, Verdict, check
from medmllm_plugin.dicom_bridge.node_settings import BurnedIn, NodeSettings, node_settings
from medmllm_plugin.dicom_bridge.tables import open_database, versions
from tests.chat_server import serving


def a_node(folder: Path, text: str = "", node: str = "") -> tuple[Settings, NodeSettings]:
    path = folder / "medmllm.toml"
    path.write_text(
        f'[node]\nfolder = "data"\nnode = "n"\nport = 0\nhttp_port = 0\nlow_disk_bytes = 0\n{node}\n{text}'
    )
    settings = load(path)
    return settings, node_settings(settings)


def looked_at(folder: Path, text: str = "", node: str = "", **how: bool) -> dict[str, Checked]:
    found = check(*a_node(folder, text, node), **{"models": False, **how})
    return {one.what: one for one in found}


def wrong(found: dict[str, Checked]) -> set[str]:
    return {name for name, one in found.items() if one.verdict is Verdict.WRONG}


def test_settings_that_are_right_are_found_right_and_nothing_is_made(tmp_path: Path) -> None:
    rule = '[[rules]]\nname = "CT"\nwhen = {Modality = "CT"}\n[outputs.disk]\nfolder = "out"\n'

    found = looked_at(tmp_path, rule, models=True)

    assert wrong(found) == set()
    assert found["model embedded"].found.endswith("on this machine")
    assert {one.verdict for one in found.values()} == {Verdict.OK}
    assert [path.name for path in tmp_path.iterdir()] == ["medmllm.toml"]


def test_a_folder_that_is_a_file_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    found = looked_at(tmp_path)

    assert "node.folder" in wrong(found)
    assert "is a file" in found["node.folder"].found


def test_too_little_room_is_wrong(tmp_path: Path) -> None:
    settings, node = a_node(tmp_path)

    found = {one.what: one for one in check(settings, replace(node, low_disk_bytes=1 << 60), models=False)}

    assert wrong(found) == {"node.low_disk_bytes"}


def test_a_database_of_a_newer_version_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    engine = open_database(str(tmp_path / "data" / "node.sqlite"))
    with engine.begin() as connection:
        connection.execute(update(versions).values(version=99))
    engine.dispose()

    found = looked_at(tmp_path)

    assert wrong(found) == {"node.database"}
    assert "version 99" in found["node.database"].found


def test_a_port_that_is_taken_is_wrong(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]

        found = looked_at(tmp_path, node=f"tls_port = {port}\n[node.tls]\ncertificate = 'c'\nkey = 'k'")

    assert wrong(found) == {"node.tls_port", "node.tls"}
    assert str(port) in found["node.tls_port"].found


def test_a_token_that_is_not_there_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_TOKEN", raising=False)
    output = '[outputs.web]\nurl = "https://pacs.example/dicom-web"\ntoken_env = "A_TOKEN"\n'

    found = looked_at(tmp_path, output, node='http_token_env = "A_TOKEN"')

    assert wrong(found) == {"node.http_token_env", "outputs.web"}


@pytest.mark.parametrize(
    ("field", "words"), [("task = 'rport'", "no task"), ("strategy = 'tripl'", "no strategy")]
)
def test_a_rule_that_could_not_be_followed_is_wrong(tmp_path: Path, field: str, words: str) -> None:
    found = looked_at(tmp_path, f"[[rules]]\nname = 'CT'\n{field}\n")

    assert wrong(found) == {"rules[0]"}
    assert words in found["rules[0]"].found


def test_a_rule_behind_one_that_every_study_fits_is_pointed_out(tmp_path: Path) -> None:
    found = looked_at(tmp_path, "[[rules]]\nname = 'all'\n[[rules]]\nname = 'CT'\nwhen = {Modality = 'CT'}\n")

    assert found["rules[1]"].verdict is Verdict.WARNING
    assert "never fires" in found["rules[1]"].found


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"  # pynetdicom leaves a socket that couldn't connect open
)
def test_peers_are_asked_for_an_echo_only_if_that_is_wanted(tmp_path: Path) -> None:
    ae = AE("PACS")
    ae.add_supported_context(Verification)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    with closing(socket.create_server(("127.0.0.1", 0))) as gone:
        nobody = gone.getsockname()[1]
    peers = "".join(
        f'[peers.{name}]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n'
        for name, port in (("there", server.server_address[1]), ("gone", nobody))
    )

    try:
        unasked, asked = looked_at(tmp_path, peers), looked_at(tmp_path, peers, peers=True)
    finally:
        server.shutdown()

    assert not any(name.startswith("peers.") for name in unasked)
    assert wrong(asked) == {"peers.gone"}
    assert asked["peers.there"].found.endswith("answers")


def test_a_model_that_is_not_there_is_wrong(tmp_path: Path) -> None:
    found = looked_at(tmp_path, node='model = "no-such-model"', models=True)

    assert wrong(found) == {"model no-such-model"}


@pytest.mark.parametrize(
    ("policy", "verdict"), [(BurnedIn.REFUSE, Verdict.WRONG), (BurnedIn.WARN, Verdict.WARNING)]
)
def test_pictures_that_would_leave_unread_are_pointed_out(
    tmp_path: Path, policy: BurnedIn, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "can_look", lambda: False)
    monkeypatch.setattr("medmllm_plugin.models.chat_options._is_loopback", lambda host: False)
    with serving() as server:
        model = f'model = "chat:{server.url}?insecure=true"\nburned_in = "{policy.value}"'

        found = looked_at(tmp_path, node=model, models=True)

    (one,) = (one for name, one in found.items() if name.startswith("model "))
    assert one.verdict is verdict
    assert "127.0.0.1" in one.found


def test_the_command_says_all_and_fails_if_something_is_wrong(tmp_path: Path) -> None:
    a_node(tmp_path, "[[rules]]\nname = 'CT'\ntask = 'rport'\n")
    arguments = ["serve", "--check", "--config", str(tmp_path / "medmllm.toml")]

    text = CliRunner().invoke(medmllm, arguments)
    as_json = CliRunner().invoke(medmllm, [*arguments, "--json"])

    assert (text.exit_code, as_json.exit_code) == (2, 2)
    assert "wrong    rules[0]: no task is named 'rport'" in text.output
    said = json.loads(as_json.output)
    assert [one["what"] for one in said["checks"] if one["verdict"] == "wrong"] == ["rules[0]"]
