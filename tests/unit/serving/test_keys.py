"""API keys: hashes alone are kept, and what is no hash is said."""

import hashlib
from pathlib import Path

import pytest

from softspoken.config import ServeConfig
from softspoken.serving.keys import Keys
from softspoken.types import InputError

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""SHA-256 of "abc", from FIPS 180-2."""


def test_a_key_opens_and_nothing_else_does(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{'0' * 64}  of nobody\n\n{ABC.upper()} # alice\n")
    keys = Keys.read(str(file))
    assert keys.hold("Bearer abc")
    assert keys.hold("bearer abc")
    for wrong in (None, "", "abc", "Bearer", "Bearer abd", "Basic abc", f"Bearer {ABC}", "Bearer \udcff"):
        assert not keys.hold(wrong)


def test_a_key_in_the_file_is_refused_and_the_sentence_says_how_to_make_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ABC}\nmy-secret-key\n")
    with pytest.raises(InputError, match="line 2 is not a SHA-256; write the hash of a key, never the key"):
        Keys.read(str(file))
    file.write_text("# none\n")
    with pytest.raises(InputError, match="has no hash in it"):
        Keys.read(str(file))
    with pytest.raises(InputError, match="cannot be read"):
        Keys.read(str(tmp_path / "nothing"))
    assert hashlib.sha256(b"abc").hexdigest() == ABC


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_beyond_this_machine_only_with_keys_or_when_told(host: str) -> None:
    with pytest.raises(InputError, match="it is beyond this machine: give api_key_file, or public true"):
        ServeConfig(host=host)
    ServeConfig(host=host, public=True)
    ServeConfig(host=host, api_key_file="keys")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_this_machine_needs_none(host: str) -> None:
    ServeConfig(host=host)
