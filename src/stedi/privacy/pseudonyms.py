"""Pseudonyms of email addresses, and the key that they depend on.

`normalise` decides which addresses are one customer (rule 1 of consent); `Key.customer_id` replaces them below landing
(rule 7). The key is outside the lake, in the environment or in a file that only its owner can read.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import stat
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from stedi._frozen import dataclass, field
from stedi.errors import KeyRefused, UsageError
from stedi.storage import destinations, durable

VARIABLE = "STEDI_PSEUDONYM_KEY"
"""Holds the key, and after it, divided by spaces, those that it has followed."""
NEXT = "STEDI_NEXT_PSEUDONYM_KEY"
"""Holds, in the same form, the key that `key rotate` is to give the lake."""
_BYTES = 32
_LARGEST = 1 << 16
"""The largest file of a key, bytes: a key and a thousand that it has followed."""


def normalise(address: str) -> str:
    """Returns the normal form of an address: the same for every spelling of one customer's address.

    Trimmed, NFC, case-folded, NFC again: folding can decompose, and a composed and a decomposed spelling are one.
    """
    # nearly all addresses: in ASCII, case-folding is `lower` and NFC changes nothing
    if address.isascii():
        return address.strip().lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", address.strip()).casefold())


@dataclass(frozen=True, slots=True)
class Key:
    """The lake's secret key; its value never leaves this object.

    Attributes:
        secret: 32 bytes.
        earlier: The lake's earlier keys, newest first. They make no pseudonyms any more; they only check what was
            signed or hashed under them and cannot be computed again, such as receipts and tombstones.
        version: `key.version` of the lake's settings. 2: pseudonyms use the key itself, everything else uses subkeys,
            so that no address can collide with another use. 1 (lakes of earlier versions): everything uses the key
            itself.
    """

    secret: bytes = field(repr=False)
    earlier: tuple[Key, ...] = field(default=(), repr=False)
    version: int = 2

    def customer_id(self, address: str) -> str:
        """Returns the pseudonym of an address: HMAC-SHA-256 of its normal form, first 16 bytes, hex."""
        # an escape in JSON can be half a character, which UTF-8 without `surrogatepass` refuses
        return _mac(self.secret)(normalise(address).encode("utf-8", "surrogatepass"))[:16].hex()

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that identify the key and reveal nothing else about it."""
        # the settings of such lakes hold this fingerprint, from before there were subkeys
        if self.version == 1:
            return hmac.digest(self.secret, b"stedi: fingerprint of the pseudonym key", "sha256")[:8].hex()
        return self.digest("fingerprint", b"")[:8].hex()

    def derive(self, label: str) -> bytes:
        """Returns the lake's subkey for one use, 32 bytes; a change of the lake's key does not change it.

        HKDF-SHA-256 (RFC 5869) of the lake's first key, without salt.

        Args:
            label: Names the use and its version, such as `stedi/sign/1`; no two uses share one.
        """
        # of the first key: seals and signatures from before a rotation go on holding, though the key is another
        return _subkey(self.every()[-1].secret, label)

    def digest(self, use: str, content: bytes) -> bytes:
        """Returns a content's HMAC-SHA-256 for one use: under a subkey of this key, in lakes of version 1 under itself.

        Args:
            use: The name of the use; each use has its own.
            content: The bytes to hash.
        """
        return self.digester(use)(content)

    def digester(self, use: str) -> Callable[[bytes], bytes]:
        """Returns what makes the same of many contents; the argument is that of `digest`."""
        if self.version == 1:
            secret, before = self.secret, f"stedi: {use}\0".encode()
        else:
            secret, before = _subkey(self.secret, f"stedi/{use}/1"), b""
        mac = _mac(secret)
        return (lambda content: mac(before + content)) if before else mac

    def of_version(self, version: int) -> Key:
        """Returns this key, and those that it has followed, as a lake of this `key.version` uses them."""
        return Key(self.secret, tuple(key.of_version(version) for key in self.earlier), version)

    def every(self) -> tuple[Key, ...]:
        """Returns this key, then the earlier ones."""
        return (self, *self.earlier)

    def follows(self, key: Key) -> bool:
        """Returns whether this is another key, and remembers that one and all before it."""
        # of a key that does not remember one before it, what was sealed under that could never be checked
        known = {each.secret for each in self.earlier}
        return self.secret not in {each.secret for each in key.every()} and known >= {k.secret for k in key.every()}


@lru_cache(16)
def _mac(secret: bytes) -> Callable[[bytes], bytes]:
    """Returns HMAC-SHA-256 (RFC 2104) under a key of at most 64 bytes, which is hashed once: that halves its cost."""
    block = secret.ljust(hashlib.sha256().block_size, b"\0")
    inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))

    def mac(content: bytes) -> bytes:
        within, around = inner.copy(), outer.copy()
        within.update(content)
        around.update(within.digest())
        return around.digest()

    return mac


@lru_cache(256)
def _subkey(secret: bytes, label: str) -> bytes:
    # extract, then expand: one block is enough for 32 bytes
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, label.encode() + b"\x01", "sha256")


def default_file(lake_id: str, environment: Mapping[str, str] | None = None) -> Path:
    """Returns the default place of a lake's key, in the user's configuration folder.

    Raises:
        KeyRefused: The home folder is unknown, or what names one of these is no absolute path.
    """
    found = os.environ if environment is None else environment
    try:
        return destinations.of_user("XDG_CONFIG_HOME", "~/.config", found) / "stedi" / "keys" / f"{lake_id}.key"
    except UsageError as error:
        raise KeyRefused(
            f"the place of the pseudonym key: {error}; set HOME or XDG_CONFIG_HOME to the path of a folder from the "
            f"root on, STEDI_KEY_FILE to the key's file, or {VARIABLE}"
        ) from error


def from_environment(environment: Mapping[str, str] | None = None, variable: str = VARIABLE) -> Key | None:
    """Returns the key of `STEDI_PSEUDONYM_KEY`, or of another variable, or None where it is not set.

    Raises:
        KeyRefused: It is set to something that is no key.
    """
    text = (os.environ if environment is None else environment).get(variable)
    return None if text is None else parsed(text, variable)


def from_file(path: Path) -> Key:
    """Returns the key that a file holds.

    Raises:
        KeyRefused: The file is missing, readable by others than its owner, or holds no key.
    """
    try:
        status = path.stat()
        text = durable.content(path, _LARGEST).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        words: dict[type[Exception], str] = {
            FileNotFoundError: "none",
            IsADirectoryError: "a folder",
            PermissionError: "one that this user may not read",
        }
        found = words.get(type(error), "something else")
        raise KeyRefused(
            f"pseudonym key {path}: expected a readable file, found {found}; restore it from its backup, name its "
            f"place in STEDI_KEY_FILE, or set {VARIABLE}"
        ) from error
    # whoever reads the key can tell from pseudonyms whose they are
    mode = stat.S_IMODE(status.st_mode)
    if mode & (0o037 if is_credential(path) and status.st_uid == 0 else 0o077):
        raise KeyRefused(f"pseudonym key {path}: expected mode 0600, found {mode:04o}; run `chmod 600` on it")
    return parsed(text, str(path))


def is_credential(path: Path) -> bool:
    """Returns whether a file is where systemd loads this service's credentials: a folder that ends with the service.

    A credential is root's, with mode 0440: what looks like its group's right is the mask of an access list, which names
    the service's user alone. Nobody but root can make such a file, whatever the variable says.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return folder is not None and path.parent == Path(folder)


def make(path: Path, earlier: tuple[Key, ...] = ()) -> Key:
    """Makes a new key and its file, on disk before it returns: a line for it, then one for each that it follows.

    Raises:
        KeyRefused: The file exists or cannot be written.
    """
    key = Key(os.urandom(_BYTES), earlier)
    try:
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        durable.folder(path.parent, 0o700)
        # complete or absent: half a key would always be refused
        durable.write(path, "".join(f"{each.secret.hex()}\n" for each in key.every()).encode())
    except OSError as error:
        raise KeyRefused(
            f"pseudonym key {path}: cannot be created ({error.strerror}); set {VARIABLE} to 64 hex digits, or "
            "STEDI_KEY_FILE"
        ) from error
    return key


def parsed(text: str, where: str) -> Key:
    """Returns the key in a text, with its earlier keys.

    Raises:
        KeyRefused: It is not a key; the message names its place.
    """
    try:
        every = [bytes.fromhex(word) for word in text.split()]
    except ValueError:
        every = []
    if not every or any(len(secret) != _BYTES for secret in every):
        raise KeyRefused(
            f"{where}: expected {2 * _BYTES} hex digits, found something else; nothing was read or written"
        )
    first, *rest = every
    return Key(first, tuple(map(Key, rest)))
