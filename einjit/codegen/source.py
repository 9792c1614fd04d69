"""A kernel as text, and the words of its parameter block."""
from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ..ir import LoopNest

IN_WORKSPACE = ("table", "pack", "copy", "stage")


@dataclass(frozen=True)
class Word:
    """One int64 of the parameter block, or one argument of a GPU's kernel. `what`: lo, hi (range of a label), step (of
    its index-th loop), stride (of a tensor along a label), digits (description of a fused label), apart and extent (of
    the dimension of a fused label in which a tensor is contiguous: positions between neighbours, and its own), row
    (bytes from one row of a tensor's copy to the next), or a place in the workspace: table (of offsets of a tensor
    along a label), pack or copy (buffer of a tensor), stage (buffer of the output's blocks). On a GPU stride and size
    are of a member of a label; count (positions of a label), blocks (in a grid along it), chunk (positions of a part
    of a sum), part (bytes from the results of one part to the next's)."""

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

    @classmethod
    def of(cls, nest: LoopNest, text: str, words: tuple[Word, ...]) -> Source:
        """With the name put where `text` says @ENTRY@. It is made of what the code computes, on the schedule's labels:
        equations that share code share names."""
        terms = ["".join(t.labels) or "1" for t in (*nest.inputs, nest.out)]
        name = re.sub(r"\W+", "_", "_".join(terms))
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        entry = f"einsum_{name}_{nest.out.dtype}_{digest}"
        return cls(text.replace("@ENTRY@", entry), entry, words)
