"""The reader of machine code: instructions, loops and widths, on text that is checked by eye."""

from __future__ import annotations

from tests.sass import parse

TEXT = """\
.text.kernel:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_2:
        /*0010*/                   LDG.E.128.CONSTANT R4, [R2.64] ;
.L_x_1:
        /*0020*/                   LDS.U.64 R8, [R3] ;
        /*0030*/                   LDS.U8 R8, [R3+0x8] ;
        /*0040*/                   LDS R9, [R3+0x10] ;
        /*0050*/                   FFMA R0, R8, R9.reuse, R0 ;
        /*0060*/                   FFMA.FTZ R1, R8, R9, R1 ;
        /*0070*/               @P0 BRA `(.L_x_1) ;
        /*0080*/              @!P1 BRA `(.L_x_2) ;
        /*0090*/                   STG.E.U16 [R2.64], R0 ;
        /*00a0*/                   EXIT ;
.L_x_3:
        /*00b0*/                   BRA `(.L_x_3);
        /*00c0*/                   NOP;
.L_x_4:
"""
CODE = parse(TEXT)


def test_instructions_have_their_parts():
    first, branch = CODE.instructions[0], CODE.instructions[7]
    assert (first.address, first.guard, first.opcode, first.operands) == (0, "", "MOV", "R1, c[0x0][0x28]")
    assert (branch.guard, branch.name, branch.target) == ("@P0", "BRA", ".L_x_1")
    assert len(CODE) == 12      # all but the NOP
    assert CODE.counts["FFMA"] == CODE.count("FFMA") == 2
    assert CODE.count("LDG", "STG") == 2


def test_accesses_have_widths():
    assert dict(CODE.widths("LDS")) == {64: 1, 8: 1, 32: 1}
    assert dict(CODE.widths("LDG")) == {128: 1}
    assert dict(CODE.widths("STG")) == {16: 1}


def test_the_hot_loop_is_the_innermost_with_the_multiply_adds():
    outer, inner = CODE.loops       # the branch to itself is none
    assert (len(outer), len(inner)) == (8, 6)
    assert CODE.hot_loop == inner
    assert inner.share("FFMA") == 2 / 6
