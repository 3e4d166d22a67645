"""Who may ask: API keys, of which a server knows hashes alone."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from softspoken.types import InputError

MAKE_ONE = 'python -c "import hashlib, secrets; key = secrets.token_urlsafe(32); print(key, hashlib.sha256(key.encode()).hexdigest())"'
"""Prints a key and the hash that goes into the file."""


class Keys:
    def __init__(self, hashes: list[str]) -> None:
        """`hashes`: SHA-256 of each key, in hexadecimal digits. Keys are long random ones: a slow hash would slow down us alone."""
        self.hashes = hashes

    @classmethod
    def read(cls, file: str) -> Keys:
        """A hash a line; what follows it, or a #, is a remark."""
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"api_key_file {file} cannot be read; give a text file with a SHA-256 a line") from error
        hashes = []
        for number, line in enumerate(lines, start=1):
            word = line.partition("#")[0].split()[:1]
            if word and not re.fullmatch("[0-9a-fA-F]{64}", word[0]):
                raise InputError(
                    f"api_key_file {file}: line {number} is not a SHA-256; write the hash of a key, never the key: {MAKE_ONE}"
                )
            hashes += [one.lower() for one in word]
        if not hashes:
            raise InputError(f"api_key_file {file} has no hash in it; make a key with {MAKE_ONE}")
        return cls(hashes)

    def hold(self, authorization: str | None) -> bool:
        """Whether the header `Authorization: Bearer KEY` has one of the keys; all are compared, each in constant time."""
        kind, _, key = (authorization or "").partition(" ")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found = False
        for known in self.hashes:
            found |= hmac.compare_digest(digest, known)
        return found and kind.lower() == "bearer"
