"""What the blocks of this node's replicas hashed to when they were last found right.

One file a volume in the service's own folder, not on the disk that it speaks of: a block a line.
It is advice for the arbiter, never proof of anything by itself: one that is lost, or of a volume
that has been written to since, only means that a scrub has less to go by.
"""

from __future__ import annotations

from pathlib import Path

from trivet.contracts.model import ResourceId


class Sums:
    """Reads and writes them; blocks, and is called in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, volume: ResourceId, first: int, count: int) -> tuple[str | None, ...]:
        """The hashes of `count` blocks from the `first` on; None: not known."""
        lines = self._lines(volume)[first : first + count]
        known = [None if line == "?" else line for line in lines]
        return tuple(known + [None] * (count - len(known)))

    def write(self, volume: ResourceId, first: int, hashes: tuple[str, ...]) -> None:
        """Keep these, of the blocks from the `first` on."""
        lines = self._lines(volume)
        lines += ["?"] * (first + len(hashes) - len(lines))
        lines[first : first + len(hashes)] = hashes
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._path(volume).with_suffix(".part")
        part.write_text("\n".join(lines))
        part.replace(self._path(volume))

    def keep_only(self, volumes: set[ResourceId]) -> None:
        """Forget all others."""
        for path in self._folder.glob("*.sums"):
            if path.stem not in volumes:
                path.unlink(missing_ok=True)

    def _lines(self, volume: ResourceId) -> list[str]:
        try:
            return self._path(volume).read_text().split("\n")
        except OSError:
            return []

    def _path(self, volume: ResourceId) -> Path:
        return self._folder / f"{volume}.sums"
