"""Computes the content of a disk after a power cut from the calls that changed it.

A file keeps the bytes of its last sync, and a folder the names of its last sync. Later changes may be lost, kept, or
kept in part: `Disk.after_cut` builds one such tree.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from calls import Call

Keep = Callable[["File | Folder"], bool]
"""Decides for a file or folder whether it has its last state rather than its last synced state."""


@dataclass(slots=True, eq=False)
class File:
    """A file's bytes: as programs see them, and as last synced."""

    seen: bytearray
    synced: bytes = b""


@dataclass(slots=True, eq=False)
class Folder:
    """A folder's names: as programs see them, and as last synced."""

    seen: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)


def nothing(_: File | Folder) -> bool:
    """Everything that was not synced is lost."""
    return False


def names(node: File | Folder) -> bool:
    """Names are on disk at once, bytes only after a sync: the usual loss."""
    return isinstance(node, Folder)


def by_chance(seed: str) -> Keep:
    """Each file and folder may be in either state, as the seed decides."""
    chance, drawn = random.Random(seed), dict[int, bool]()
    return lambda node: drawn.setdefault(id(node), chance.random() < 0.5)


class Disk:
    """A folder's tree, on which calls are replayed.

    Args:
        folder: The current tree, all of it synced.
    """

    def __init__(self, folder: Path) -> None:
        self._root, self._nodes = folder, dict[int, File | Folder]()
        self._top = self._load(folder)
        self.changed = True
        """Whether the synced state has changed since this was last reset."""

    def _load(self, path: Path) -> File | Folder:
        node: File | Folder
        if path.is_dir():
            inside = {entry.name: self._load(entry) for entry in path.iterdir()}
            node = Folder(inside, dict(inside))
        else:
            content = path.read_bytes()
            node = File(bytearray(content), content)
        self._nodes[path.stat().st_ino] = node
        return node

    def do(self, call: Call) -> None:
        """Replays one call."""
        if call.failed:
            return
        match call.name:
            case "open" | "mkdir":
                if call.made:
                    made = self._nodes[call.inode] = File(bytearray()) if call.name == "open" else Folder()
                    self._folder(call.path).seen[call.path.name] = made
                elif call.emptied:
                    self._file(call).seen.clear()
            case "write":
                seen, end = self._file(call).seen, call.offset + len(call.data)
                seen.extend(bytes(max(0, call.offset - len(seen))))
                seen[call.offset : end] = call.data
            case "truncate":
                seen = self._file(call).seen
                del seen[call.offset :]
                seen.extend(bytes(call.offset - len(seen)))
            case "allocate":
                seen = self._file(call).seen
                seen.extend(bytes(max(0, call.offset - len(seen))))
            case "rename":
                self._folder(call.other).seen[call.other.name] = self._folder(call.path).seen.pop(call.path.name)
            case "unlink" | "rmdir":
                del self._folder(call.path).seen[call.path.name]
            case "sync":
                node = self._nodes[call.inode]
                if isinstance(node, File):
                    self.changed |= node.synced != node.seen
                    node.synced = bytes(node.seen)
                else:
                    self.changed |= node.synced != node.seen
                    node.synced = dict(node.seen)

    def after_cut(self, folder: Path, keep: Keep) -> None:
        """Writes the tree that a power cut now would leave into a folder that does not exist yet."""
        self._write(self._top, folder, keep)

    def _write(self, node: File | Folder, path: Path, keep: Keep) -> None:
        if isinstance(node, File):
            path.write_bytes(node.seen if keep(node) else node.synced)
            path.chmod(0o600)
            return
        path.mkdir(mode=0o700)
        for name, inside in (node.seen if keep(node) else node.synced).items():
            self._write(inside, path / name, keep)

    def _file(self, call: Call) -> File:
        node = self._nodes[call.inode]
        assert isinstance(node, File)
        return node

    def _folder(self, path: Path) -> Folder:
        at: File | Folder = self._top
        for name in path.parent.relative_to(self._root).parts:
            assert isinstance(at, Folder)
            at = at.seen[name]
        assert isinstance(at, Folder)
        return at
