"""PTX text to a kernel's frozen values.

Only what a kernel needs to run is kept; `.loc` and `.pragma` are passed over. Inline assembly may open a scope of its
own with braces, in which registers and labels are declared again: those get a suffix. A device function is read again
wherever it is called, in a scope of its own; its parameters and results are registers of the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from keyword import iskeyword

import numpy as np

from .dtypes import bits, dtype
from .errors import PtxError, UnsupportedPtx
from .syntax import Address, Immediate, Instruction, Kernel, Operand, Pair, Parameter, Register, Special, Symbol, \
    Variable, Vector

SPECIAL = re.compile(r"%(tid|ntid|ctaid|nctaid)\.[xyz]|%(laneid|warpid|dynamic_smem_size|lanemask_(eq|[lg][te]))")
IDENTIFIER = r"[%$_a-zA-Z][\w$]*"
VARIABLE = re.compile(
    r"(?:\.(?:visible|extern|weak)\s+)*\.(?P<space>shared|local|global|const)\s+"
    rf"(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>\w+)\s+(?P<name>{IDENTIFIER})(?P<length>\[\d*\])?"
    r"\s*(?:=\s*(?P<data>.+))?", re.S)
PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+\d+\s+)?\.(?P<type>\w+)\s+(?:\.ptr\s+(?:\.(?:global|shared|const|local)\s+)?"
    rf"(?:\.align\s+\d+\s+)?)?(?P<name>{IDENTIFIER})(?:\[(?P<length>\d+)\])?")
FUNCTION = re.compile(
    rf"\.func\s*(?:\((?P<results>[^)]*)\))?\s*(?P<name>{IDENTIFIER})\s*\((?P<params>[^)]*)\)[^{{;]*\{{")
CALL = re.compile(
    rf"call(?:\.uni)?\s*(?:\((?P<results>[^)]*)\)\s*,\s*)?(?P<name>{IDENTIFIER})\s*(?:,\s*\((?P<args>[^)]*)\)\s*)?")
DEEPEST = 8      # calls inside calls that are read
INSTRUCTION = re.compile(rf"(?:@(?P<guard>!?{IDENTIFIER})\s+)?(?P<opcode>[a-z][\w.:]*)\s*(?P<operands>.*)", re.S)
NUMBER = r"0[xX][\da-fA-F]+|0[fF][\da-fA-F]{8}|0[dD][\da-fA-F]{16}|-?\d[\d.]*(?:e[+-]?\d+)?"


def parse(text: str, name: str = "") -> Kernel:
    """The entry called `name` of a PTX module, or the only one."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)
    text = re.sub(r"^\s*\.(loc|file|version|target|address_size)\b[^\n]*", "", text, flags=re.M)
    entries = list(re.finditer(rf"\.entry\s+({IDENTIFIER})\s*(?:\(([^)]*)\))?([^{{;]*)\{{", text))
    chosen = [e for e in entries if name in ("", e[1])]
    if len(chosen) != 1:
        raise PtxError(f"no single kernel {name!r} among these: {', '.join(e[1] for e in entries)}")
    entry = chosen[0]
    body = _Body({found["name"]: _function(text, found) for found in FUNCTION.finditer(text)})
    body.variables += _module_variables(text)
    body.read(text[entry.end():_closing(text, entry.end())])
    maxntid = re.search(r"\.maxntid\s+([\d,\s]+)", entry[3])
    return Kernel(
        name=entry[1],
        params=tuple(_parameter(m) for m in PARAMETER.finditer(entry[2] or "")),
        variables=tuple(body.variables),
        registers=tuple(body.registers),
        instructions=body.finished(),
        labels=body.labels,
        maxntid=int(np.prod([int(n) for n in maxntid[1].split(",")])) if maxntid else 0,
    )


@dataclass(frozen=True)
class _Function:
    """The names of a device function's results and parameters, in this order, and its body's text."""

    names: tuple[str, ...]
    body: str


def _function(text: str, found: re.Match) -> _Function:
    names = tuple(m["name"] for part in ("results", "params") for m in PARAMETER.finditer(found[part] or ""))
    return _Function(names, text[found.end():_closing(text, found.end())])


def _closing(text: str, start: int) -> int:
    """Where the brace closes inside which `start` lies."""
    depth = 1
    for found in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if found[0] == "{" else -1
        if depth == 0:
            return found.start()
    raise PtxError("a closing brace is missing")


def _module_variables(text: str) -> Iterator[Variable]:
    outside, position = "", 0
    for found in re.finditer(r"\.(?:entry|func)\b[^{;]*\{", text):
        if found.start() >= position:
            outside += text[position:found.start()]
            position = _closing(text, found.end()) + 1
    for statement in (outside + text[position:]).split(";"):
        if found := VARIABLE.search(statement):
            yield _variable(found)


def _parameter(found: re.Match) -> Parameter:
    return Parameter(found["name"], found["type"], bits(found["type"]) // 8 * int(found["length"] or 1))


def _variable(found: re.Match) -> Variable:
    item = bits(found["type"]) // 8
    data = b"".join(_bytes(_number(v).value, found["type"]) for v in re.findall(NUMBER, found["data"] or ""))
    size = max(item * int((found["length"] or "[1]")[1:-1] or 0), len(data))
    return Variable(found["space"], found["name"], int(found["align"] or item), size, data)


def _bytes(value: int | float, kind: str) -> bytes:
    if dtype(kind).kind == "f":
        return dtype(kind).type(value).tobytes()
    return (value % (1 << bits(kind))).to_bytes(bits(kind) // 8, "little")


def _number(text: str) -> Immediate:
    if text[:2] in ("0f", "0F"):
        return Immediate(float(np.uint32(int(text[2:], 16)).view(np.float32)), "f32")
    if text[:2] in ("0d", "0D"):
        return Immediate(float(np.uint64(int(text[2:], 16)).view(np.float64)), "f64")
    if re.fullmatch(r"-?\d+\.\d*(e[+-]?\d+)?", text):
        return Immediate(float(text), "f64")
    return Immediate(int(text.rstrip("U"), 0))


class _Body:
    """What has been read of a kernel's body so far, and the scopes that are open, the innermost last."""

    def __init__(self, functions: dict[str, _Function]) -> None:
        self.functions = functions
        self.returns: list[str] = []     # where the functions go back to that are being read
        self.variables: list[Variable] = []
        self.registers: list[Register] = []
        self.instructions: list[Instruction] = []
        self.labels: dict[str, int] = {}
        self.scopes: list[tuple[str, dict[str, Register]]] = [("", {})]
        self.opened = 0
        self.branches: dict[int, list[str]] = {}     # by instruction: the labels that it may mean, the nearest first

    def read(self, text: str) -> None:
        for statement in _statements(text):
            if statement == "{":
                self.opened += 1
                self.scopes.append((f"_s{self.opened}", {}))
            elif statement == "}":
                self.scopes.pop()
            elif statement.endswith(":"):
                self.labels[statement[:-1] + self.scopes[-1][0]] = len(self.instructions)
            elif statement.startswith(".reg"):
                self._declare(statement)
            elif statement.startswith(".param") and (found := PARAMETER.fullmatch(statement)) and not found["length"]:
                self._declare(f".reg .{found['type']} {found['name']}")
            elif (found := CALL.fullmatch(statement)) and self._can_enter(found["name"]):
                self._enter(found)
            elif found := VARIABLE.fullmatch(statement):
                self.variables.append(_variable(found))
            elif not statement.startswith("."):
                self.instructions.append(self._instruction(statement))

    def _can_enter(self, name: str) -> bool:
        return name in self.functions and len(self.returns) < DEEPEST

    def _enter(self, call: re.Match) -> None:
        """Read the body of a function; its `ret` goes behind it."""
        function = self.functions[call["name"]]
        given = [name.strip() for part in ("results", "args") for name in (call[part] or "").split(",") if name.strip()]
        bound = {name: self._operand(register) for name, register in zip(function.names, given)}
        self.opened += 1
        self.scopes.append((f"_s{self.opened}", {k: v for k, v in bound.items() if isinstance(v, Register)}))
        self.returns.append(f"return_s{self.opened}")
        self.read(function.body)
        self.labels[self.returns.pop()] = len(self.instructions)
        self.scopes.pop()

    def finished(self) -> tuple[Instruction, ...]:
        """The instructions; a branch may come before its label, so only now is it known which one it means."""
        for at, meant in self.branches.items():
            label = next((name for name in meant if name in self.labels), None)
            if label is None:
                raise PtxError(f"no label for {self.instructions[at].text!r}")
            self.instructions[at] = replace(self.instructions[at], operands=(Symbol(label),))
        return tuple(self.instructions)

    def _declare(self, statement: str) -> None:
        found = re.fullmatch(r"\.reg\s+\.(\w+)\s+(.*)", statement, re.S)
        suffix, names = self.scopes[-1]
        for item in found[2].split(","):
            spelled, count = re.fullmatch(r"\s*([^\s<]+)\s*(?:<(\d+)>)?\s*", item).groups()
            for name in [f"{spelled}{n}" for n in range(int(count))] if count else [spelled]:
                python = name.replace("%", "").replace("$", "_") + suffix
                names[name] = Register(python + "_" if iskeyword(python) else python, found[1])
                self.registers.append(names[name])

    def _instruction(self, statement: str) -> Instruction:
        found = INSTRUCTION.fullmatch(statement)
        if not found:
            raise UnsupportedPtx(f"{statement!r} does not read as an instruction")
        if found["opcode"] == "ret" and self.returns:
            self.branches[len(self.instructions)] = self.returns[-1:]
            return Instruction(("bra",), (), self._guard(found), statement)
        opcode = tuple("shared" if part == "shared::cta" else part for part in found["opcode"].split("."))
        operands: tuple[Operand, ...] = ()
        if opcode[0] == "bra":
            meant = found["operands"].strip()
            self.branches[len(self.instructions)] = [meant + suffix for suffix, _ in reversed(self.scopes)]
        elif opcode[0] not in ("call", "brx"):     # theirs have a syntax of their own
            operands = tuple(self._operand(text) for text in _split(found["operands"]))
        return Instruction(opcode, operands, self._guard(found), " ".join(statement.split()))

    def _guard(self, instruction: re.Match) -> Operand | None:
        return self._operand(instruction["guard"]) if instruction["guard"] else None

    def _operand(self, text: str) -> Operand:
        text = text.strip()
        if text.startswith("{"):
            return Vector(tuple(self._operand(item) for item in _split(text[1:-1])))
        if text.startswith("["):
            return self._address(text[1:-1])
        if "|" in text:
            return Pair(*(self._operand(part) for part in text.split("|")))
        if re.match(r"-?\d", text):
            return _number(text)
        if SPECIAL.fullmatch(text):
            return Special(text[1:])
        for _, names in reversed(self.scopes):
            if register := names.get(text.lstrip("! ")):
                return replace(register, negated=True) if text.startswith("!") else register
        if text.startswith(("%", "!")):
            raise UnsupportedPtx(f"register {text} is neither declared nor known")
        return Symbol(text)

    def _address(self, text: str) -> Address:
        base, offset = re.fullmatch(r"(-?[^+-]+)(?:\+?(-?[^+-]+))?", text.replace(" ", "")).groups()
        return Address(self._operand(base), int(offset or "0", 0))


def _statements(text: str) -> Iterator[str]:
    """Instructions and declarations without their semicolons, labels with their colon, and the braces of scopes.

    A brace opens or closes a scope where a statement begins; elsewhere it belongs to an operand."""
    statement = ""
    for piece in re.findall(r"::|[;{}:]|[^;{}:]+", text):
        if piece in ("{", "}") and not statement.strip():
            yield piece
        elif piece == ";":
            if statement.strip():
                yield statement.strip()
            statement = ""
        elif piece == ":" and re.fullmatch(rf"\s*{IDENTIFIER}\s*", statement):
            yield statement.strip() + ":"
            statement = ""
        else:
            statement += piece
    if statement.strip():
        raise PtxError(f"{statement.strip()!r} has no end")


def _split(text: str) -> list[str]:
    """At the commas that no bracket encloses."""
    return [item for item in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|\([^)]*\)|[^,{\[(])+", text) if item.strip()]
