"""What loading somebody else's weights did, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Receipt:
    """The outcome of `load_weights`. Names of tensors in `matched`, `new` and `resized` are the model's.

    source: who made the file, as the caller said. conventions: what no tensor shows, as loaded.
    matched: tensors taken over. dropped: tensors of the file that were left out on purpose, under the file's names.
    new: tensors of the model that the file did not provide, so they stay as they were. resized: tensors that had
    to change shape. licence: of the weights. notes: what the reader of the receipt must know.
    file, sha256: of the checkpoint; None where a state dict was given.
    """

    source: str
    conventions: str
    matched: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    licence: str = "unknown"
    notes: tuple[str, ...] = ()
    file: str | None = None
    sha256: str | None = None

    def to_json(self) -> dict[str, object]:
        """Everything as plain values; names of matched tensors are counted, the rest is listed."""
        return {
            "source": self.source,
            "conventions": self.conventions,
            "matched": len(self.matched),
            "dropped": list(self.dropped),
            "new": list(self.new),
            "resized": list(self.resized),
            "licence": self.licence,
            "notes": list(self.notes),
            "file": self.file,
            "sha256": self.sha256,
        }

    def __str__(self) -> str:
        lines = [
            f"{len(self.matched)} tensors matched, {len(self.dropped)} dropped, {len(self.new)} new, "
            f"{len(self.resized)} resized",
            f"source: {self.source} (conventions: {self.conventions})",
            f"licence: {self.licence}",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
