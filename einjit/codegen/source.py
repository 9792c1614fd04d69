"""A kernel as text, and the words of its parameter block."""
from __future__ import annotations

from dataclasses import dataclass

IN_WORKSPACE = ("table", "pack", "copy", "stage")


@dataclass(frozen=True)
class Word:
    """One int64 of the parameter block. `what`: lo, hi (range of a label), step (of its index-th loop),
    stride (of a tensor along a label), digits (description of a fused label), apart and extent (of the dimension
    of a fused label in which a tensor is contiguous: positions between neighbours, and its own), row (bytes from one
    row of a tensor's copy to the next), or a place in the workspace: table (of offsets of a tensor along a label),
    pack or copy (buffer of a tensor), stage (buffer of the output's blocks)."""

    what: str
    label: str = ""
    tensor: str = ""
    index: int = 0

    @property
    def name(self) -> str:
        match self.what:
            case "step":
                return f"{self.label}_step{self.index}"
            case "stride" | "table":
                return f"{self.tensor}_{self.label}"
            case "apart" | "extent":
                return f"{self.tensor}_{self.label}_{self.what}"
            case "pack":
                return f"{self.tensor}_panels"
            case "stage":
                return "stage"
            case "copy" | "row":
                return f"{self.tensor}_{self.what}"
        return f"{self.label}_{self.what}"


@dataclass(frozen=True)
class Source:
    """A kernel as text. `entry` is the function's name, which ends in a hash of the text; the function
    takes the address of the data pointers (output, inputs, workspace) and that of the words."""

    text: str
    entry: str
    words: tuple[Word, ...]
