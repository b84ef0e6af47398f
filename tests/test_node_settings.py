"""Tests of `dicom_bridge/node_settings.py`: a wrong field is named by its path before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmllm_plugin import config
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, Output, Peer, Unmatched, node_settings
from medmllm_plugin.dicom_bridge.spool import Durability
from medmllm_plugin.errors import SettingsError

WHOLE = """
[models.lingshu]
uses = "embedded"

[node]
folder = "state"
node = "one"
ae_title = "AI"
port = 104
host = "0.0.0.0"
networks = ["10.0.0.0/8"]
calling_aes = ["CT1", "MR1"]
durability = "process"
quiet_s = 30
complete_by = "pacs"
unmatched = "read"
tls_port = 2762

[node.tls]
certificate = "c.pem"
key = "/etc/k.pem"

[peers.pacs]
ae_title = "PACS"
host = "10.0.0.5"
port = 104
commitment = true

[outputs.pacs]
peer = "pacs"
commitment = true

[outputs.copies]
folder = "copies"

[[rules]]
name = "all"
outputs = ["pacs"]
"""


def read(content: str, folder: Path) -> NodeSettings:
    path = folder / "medmllm.toml"
    path.write_text(content, encoding="utf-8")
    return node_settings(config.load(path))


def test_all_of_it_is_read(tmp_path: Path) -> None:
    node = read(WHOLE, tmp_path)

    assert (node.ae_title, node.port, node.quiet_s, node.durability, node.unmatched) == (
        *("AI", 104, 30.0, Durability.PROCESS, Unmatched.READ),
    )
    assert node.peers == {"pacs": Peer(ae_title="PACS", host="10.0.0.5", port=104, commitment=True)}
    assert node.outputs["pacs"] == Output(peer="pacs", commitment=True)
    assert [rule.name for rule in node.rules] == ["all"]
    assert node.calling_aes == ("CT1", "MR1")


def test_paths_are_found_from_the_file(tmp_path: Path) -> None:
    node = read(WHOLE, tmp_path)

    assert node.folder == tmp_path / "state"
    assert node.database_url == str(tmp_path / "state" / "node.sqlite")
    assert node.spool == tmp_path / "state" / "spool" / "one"
    assert node.outputs["copies"].folder == tmp_path / "copies"
    assert node.tls is not None
    assert (node.tls.certificate, node.tls.key) == (tmp_path / "c.pem", Path("/etc/k.pem"))


def test_little_needs_to_be_said(tmp_path: Path) -> None:
    node = read('[node]\nfolder = "state"\n', tmp_path)

    assert (node.host, node.port, node.http_host, node.model) == ("127.0.0.1", 11112, "127.0.0.1", "embedded")


NODE = '[node]\nfolder = "state"\n'
PEER = '[peers.pacs]\nae_title = "PACS"\nhost = "h"\nport = 104\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"node.folder: found nothing, expected it to be said"),
        (f"{NODE}prot = 1", r"node: found 'prot', expected one of folder, database"),
        (f'{NODE}port = "104"', r"node.port: found '104', expected a whole number"),
        (f"{NODE}port = 99999", r"node.port: found 99999, expected a port from 0 to 65535"),
        (f"{NODE}port = true", r"node.port: found True, expected a whole number"),
        (f"{NODE}quiet_s = -1", r"node.quiet_s: found -1, expected 0 or more"),
        (f'{NODE}durability = "often"', r"node.durability: found 'often', expected one of power, process"),
        (f'{NODE}networks = ["10.0.0"]', r"node.networks\[0\]: found '10.0.0', expected an address"),
        (f"{NODE}calling_aes = [7]", r"node.calling_aes\[0\]: found 7, expected a text"),
        (f'{NODE}ae_title = "A TITLE THAT IS TOO LONG"', r"expected 1 to 16 ASCII characters"),
        (f'{NODE}complete_by = "pacs"', r"node.complete_by: found 'pacs', expected a name of \[peers\]"),
        (f"{NODE}tls_port = 2762", r"node.tls_port: found 2762, expected both"),
        (f'{NODE}http_host = "0.0.0.0"', r"node.http_host: found '0.0.0.0', expected a loopback address, or"),
        (
            f'{NODE}http_host = "0.0.0.0"\nhttp_token_env = "T"',
            r"expected a loopback address, \[node.http_tls\], or behind_proxy",
        ),
        (f"{NODE}[peers.pacs]\nport = 1", r"peers.pacs.ae_title: found nothing, expected it to be said"),
        (f"{NODE}[outputs.a]\n", r"outputs.a: found 'none of them', expected one of peer, url and folder"),
        (
            f'{NODE}{PEER}[outputs.a]\npeer = "pacs"\nurl = "u"',
            r"outputs.a: found 'peer and url', expected one of",
        ),
        (f'{NODE}{PEER}[outputs.a]\npeer = "other"', r"outputs.a.peer: found 'other', expected one of pacs"),
        (
            f'{NODE}{PEER}[outputs.a]\npeer = "pacs"\ncommitment = true',
            r"outputs.a.commitment: found True, expected false, or a peer",
        ),
        (
            f'{NODE}[[rules]]\nname = "a"\noutputs = ["x"]',
            r"rules\[0\].outputs: found 'x', expected a name of",
        ),
        (f"{NODE}[rule]\n", r"found 'rule', expected one of models, node, peers, outputs, rules"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        read(content, tmp_path)
