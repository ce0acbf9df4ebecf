"""Names of chroots, aliases and sessions: what they may be, and which namespace a word asks for (schroot.conf(5))."""

from __future__ import annotations

from sessions.data import Frozen
from sessions.errors import InvalidName, NoSuchNamespace

CHROOT = "chroot"
SOURCE = "source"
SESSION = "session"
NAMESPACES = (CHROOT, SESSION, SOURCE)

# A session's name is a file name with room left for what the store adds to it; 200 is what schroot users rely on.
LONGEST_NAME = 200

_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_REST = _FIRST | frozenset("_.-")
# Package managers leave copies of configuration files under these endings; schroot refuses them as names.
_DPKG_ENDINGS = ("dpkg-old", "dpkg-dist", "dpkg-new", "dpkg-tmp")


def is_valid(name: str) -> bool:
    """Whether `name` is ``[A-Za-z0-9][A-Za-z0-9_.-]*``, of at most 200 characters, and no leftover of dpkg's."""
    return len(name) <= LONGEST_NAME and is_of_a_file(name)


def is_of_a_file(name: str) -> bool:
    """Whether a configuration file may be called so: like a chroot, at any length."""
    return name != "" and name[0] in _FIRST and _REST.issuperset(name) and not name.endswith(_DPKG_ENDINGS)


def check(name: str, what: str) -> str:
    """Return `name`; raise InvalidName, which calls it a `what` ("session name"), unless :func:`is_valid`."""
    if not is_valid(name):
        raise InvalidName(
            f"{what} {name!r} is not valid",
            hint=f"a name is a letter or digit, then letters, digits, '_', '.' or '-', at most {LONGEST_NAME}",
        )
    return name


class Qualified(Frozen):
    """A name as typed, taken apart: ``source:sid`` is ("source", "sid")."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}:{self.name}"


def split(word: str, default: str) -> Qualified:
    """Take ``[NAMESPACE:]NAME`` apart; a word without a namespace gets `default`.

    Raises NoSuchNamespace for any other prefix and InvalidName for a bad name, before anything is looked up.
    """
    namespace, colon, name = word.rpartition(":")
    if not colon:
        return Qualified(default, check(name, f"{default} name"))
    if namespace not in NAMESPACES:
        raise NoSuchNamespace(namespace)
    return Qualified(namespace, check(name, f"{namespace} name"))
