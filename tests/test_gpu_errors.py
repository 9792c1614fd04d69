"""The whole text of every error of calls with arrays on a GPU, and what is said where something is missing: nothing is
compiled here, and no Numba-CUDA is needed."""

from __future__ import annotations

import sys

import ml_dtypes  # noqa: F401  (for NumPy to know bfloat16)
import numpy as np
import pytest

import einjit
from einjit import gpudriver, machine
from einjit.codegen.gpubuild import CudaUnavailable
from einjit.contraction import Layout
from einjit.errors import ArgumentError, DtypeError, EinjitError, EquationError, OperandError, ShapeError
from einjit.gpukernel import GpuKernel
from einjit.options import current
from einjit.parse import parse_for
from einjit.planning import Problem
from tests.fake_gpu import FakeGpu
from tests.subprocesses import run_code

PRODUCT = "ij,jk->ik"
A, B = np.ones((2, 3), "float32"), np.ones((3, 4), "float32")


@einjit.jit("i,i->i")
def difference(a, b):
    return a - b


@pytest.fixture
def gpu(monkeypatch):
    return FakeGpu(monkeypatch)


def masked(gpu):
    return einjit.einsum(PRODUCT, gpu.cupy_array(A), gpu.raw(B, mask=gpu.raw(B)))


def with_out(read_only):
    def call(gpu):
        out = gpu.raw(np.zeros((2, 4), "float32"))
        pointer, _ = out.__cuda_array_interface__["data"]
        out.__cuda_array_interface__["data"] = pointer, read_only
        return einjit.einsum(PRODUCT, gpu.cupy_array(A), gpu.cupy_array(B), out=out)
    return call


def with_second(**changes):
    return lambda gpu: einjit.einsum(PRODUCT, gpu.cupy_array(A), gpu.raw(B, **changes))


def with_interface(*without):
    def call(gpu):
        x = gpu.raw(B)
        for key in without:
            del x.__cuda_array_interface__[key]
        return einjit.einsum(PRODUCT, gpu.cupy_array(A), x)
    return call


def tensor(**attributes):
    def call(gpu):
        x = gpu.torch_tensor(A)
        vars(x).update(attributes)
        return einjit.einsum("ij->i", x)
    return call


def cupy_call(equation=PRODUCT, a=A, b=B, out=None, **keywords):
    def call(gpu):
        on_device = None if out is None else gpu.cupy_array(out)
        return einjit.einsum(equation, gpu.cupy_array(a), gpu.cupy_array(b), out=on_device, **keywords)
    return call


def overlapping(gpu):
    row = gpu.memory.copy(np.zeros(4, "float32"), 0)
    out = gpu.cupy.ndarray(np.lib.stride_tricks.as_strided(row, (2, 4), (0, 4)), 0)
    return einjit.einsum(PRODUCT, gpu.cupy_array(A), gpu.cupy_array(B), out=out)


def shifted(gpu):
    memory = gpu.memory.allocate(64, 0)
    x = gpu.cupy.ndarray(np.ndarray((3, 4), "float32", memory, 2), 0)
    return einjit.einsum(PRODUCT, gpu.cupy_array(A), x)


def half_a_complex(gpu):
    memory = gpu.memory.allocate(256, 0)
    x = gpu.cupy.ndarray(np.ndarray((3,), "complex128", memory, 0, (24,)), 0)
    return einjit.einsum("i->", x)


def jitted(**keywords):
    @einjit.jit(PRODUCT, target="cuda", **keywords)
    def product(a, b): ...

    return product


def compiled(*operands):
    def call(gpu):
        return GpuKernel(*problem_of_a_product())(*map(gpu.cupy_array, operands))
    return call


def problem_of_a_product():
    layouts = Layout.of(A), Layout.of(B)
    problem = Problem(PRODUCT, parse_for(PRODUCT, [A.shape, B.shape]), layouts, None, None, "C", "safe", None, None,
                      current())
    return problem, machine.gpu((8, 0)), None, ()


ERRORS = {
    "an operand in host memory": (lambda gpu: einjit.einsum(PRODUCT, gpu.cupy_array(A), B), OperandError, """
operand 1 is in host memory, and operand 0 is on a GPU
  ij,jk->ik
     ^^
  fix: copy it there first: cupy.asarray(x)"""),
    "the first one": (lambda gpu: einjit.einsum(PRODUCT, A.tolist(), gpu.torch_tensor(B)), OperandError, """
operand 0 is in host memory, and operand 1 is on a GPU
  ij,jk->ik
  ^^
  fix: copy it there first: x.to('cuda')"""),
    "both, and out is not": (lambda gpu: einjit.einsum(PRODUCT, A, B, out=gpu.numba_array(A)), OperandError, """
operand 0 is in host memory, and out is on a GPU
  ij,jk->ik
  ^^
  fix: copy it there first: numba.cuda.to_device(x)"""),
    "with lists of labels": (lambda gpu: einjit.einsum(A, [0, 1], gpu.cupy_array(B), [1, 2]), OperandError, """
operand 0 is in host memory, and operand 1 is on a GPU
  fix: copy it there first: cupy.asarray(x)"""),
    "tensordot": (lambda gpu: einjit.tensordot(gpu.cupy_array(A), B, 1), OperandError, """
operand 1 is in host memory, and operand 0 is on a GPU
  fix: copy it there first: cupy.asarray(x)"""),
    "tensordot's axes": (lambda gpu: einjit.tensordot(gpu.cupy_array(A), gpu.cupy_array(B), 2), OperandError, """
axis 0 of a has size 2 and axis 0 of b has size 3
  shapes: (2, 3) (3, 4)"""),
    "out in host memory": (
        lambda gpu: einjit.einsum(PRODUCT, gpu.cupy_array(A), gpu.cupy_array(B), out=A), OperandError, """
out is in host memory, and the operands are on a GPU
  ij,jk->ik
         ^^
  fix: pass an array on the same device"""),
    "two devices": (
        lambda gpu: einjit.einsum(PRODUCT, gpu.cupy_array(A), gpu.torch_tensor(B, device=1)), OperandError, """
operand 1 is on device 1, and those before it on device 0
  ij,jk->ik
     ^^
  fix: copy it to device 0 first"""),
    "two devices by their pointers": (
        lambda gpu: einjit.einsum(PRODUCT, gpu.numba_array(A, device=2), gpu.numba_array(B)), OperandError, """
operand 1 is on device 0, and those before it on device 2
  ij,jk->ik
     ^^
  fix: copy it to device 2 first"""),
    "out on another": (
        lambda gpu: einjit.einsum("ij->ij", gpu.cupy_array(A), out=gpu.cupy_array(A, device=1)), OperandError, """
out is on device 1, and the operands are on device 0
  ij->ij
      ^^
  fix: pass an out on device 0"""),
    "masked": (masked, OperandError, """
operand 1 is masked
  ij,jk->ik
     ^^
  fix: fill the masked elements first: sums take no mask"""),
    "an old version": (with_second(version=1), OperandError, """
operand 1 has version 1 of __cuda_array_interface__
  ij,jk->ik
     ^^
  fix: use a release of its library that has version 2 or 3"""),
    "no version": (with_interface("version"), OperandError, """
operand 1 has version 0 of __cuda_array_interface__
  ij,jk->ik
     ^^
  fix: use a release of its library that has version 2 or 3"""),
    "no type": (with_interface("typestr"), OperandError, """
the __cuda_array_interface__ of operand 1 has no 'typestr'
  ij,jk->ik
     ^^
  fix: pass an array of CuPy's, torch's or Numba's"""),
    "no data": (with_interface("data"), OperandError, """
the __cuda_array_interface__ of operand 1 has no 'data'
  ij,jk->ik
     ^^
  fix: pass an array of CuPy's, torch's or Numba's"""),
    "the other byte order": (with_second(typestr=">f4"), DtypeError, """
operand 1 has elements of the other byte order ('>f4')
  ij,jk->ik
     ^^
  fix: convert it first"""),
    "dates": (with_second(typestr="<M8[s]"), DtypeError, """
operand 1 has dtype datetime64[s], for which there are no kernels
  ij,jk->ik
     ^^
  fix: convert the operand"""),
    "records": (with_second(typestr="|V6"), DtypeError, """
operand 1 has dtype |V6, for which there are no kernels
  ij,jk->ik
     ^^
  fix: convert the operand"""),
    "no type at all": (with_second(typestr="?!"), DtypeError, """
operand 1 has dtype ?!, for which there are no kernels
  ij,jk->ik
     ^^
  fix: convert the operand"""),
    "between elements": (shifted, OperandError, """
operand 1 has elements of 4 bytes that do not lie on multiples of 4
  ij,jk->ik
     ^^
  fix: copy it into an array of its own first"""),
    "strides between elements": (half_a_complex, OperandError, """
operand 0 has elements of 16 bytes that do not lie on multiples of 16
  i->
  ^
  fix: copy it into an array of its own first"""),
    "conjugated": (tensor(conjugated=True), OperandError, """
operand 0 is conjugated only in name: its memory is not
  ij->i
  ^^
  fix: pass x.resolve_conj()"""),
    "negated": (tensor(negated=True), OperandError, """
operand 0 is negated only in name: its memory is not
  ij->i
  ^^
  fix: pass x.resolve_neg()"""),
    "a gradient": (tensor(requires_grad=True), OperandError, """
operand 0 requires a gradient, which einjit does not record
  ij->i
  ^^
  fix: pass x.detach(), or call it under torch.no_grad()"""),
    "out is read-only": (with_out(read_only=True), OperandError, """
out is read-only
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass an array that can be written to"""),
    "out overlaps itself": (overlapping, OperandError, """
elements of out share memory, so that threads would write over each other's
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass an out whose elements lie apart"""),
    "out of another shape": (cupy_call(out=B), OperandError, """
out has shape (3, 4), and the result has shape (2, 4)
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass an out of shape (2, 4)"""),
    "out of another dtype": (cupy_call(out=np.zeros((2, 4), "int32")), DtypeError, """
the result has dtype float64 and cannot be cast to out's int32 under the rule 'safe'
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass casting='same_kind' or 'unsafe', or an out of the result's dtype"""),
    "a cast of an operand": (cupy_call(a=A.astype("complex64"), dtype="float32", casting="unsafe"), DtypeError, """
operand 0 has dtype complex64, which kernels for a GPU do not convert to float32
  ij,jk->ik
  ^^
  shapes: (2, 3) (3, 4)
  fix: convert the operand first"""),
    "a cast of the result": (cupy_call(out=np.zeros((2, 4), "int32"), casting="unsafe"), DtypeError, """
the result has dtype float64, which kernels for a GPU do not convert to out's int32
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass an out of dtype float64"""),
    "a dtype without kernels": (cupy_call(dtype="M8[s]"), DtypeError, """
dtype=datetime64[s] has no kernels
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass one that has, such as 'float32'"""),
    "no dtype": (cupy_call(dtype="float33"), DtypeError, """
dtype='float33' is not a dtype
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass a NumPy dtype or its name, such as 'float32'"""),
    "sizes that clash": (cupy_call(b=B.T), ShapeError, """
label 'j' has size 3 in operand 0 (axis 1) and size 4 in operand 1 (axis 0)
  ij,jk->ik
   ^ ^
  shapes: (2, 3) (4, 3)
  fix: give 'j' one size everywhere; only size 1 stretches to another"""),
    "an equation that is none": (cupy_call("ij,j?->i"), EquationError, """
'?' is not a label
  ij,j?->i
      ^
  shapes: (2, 3) (3, 4)
  fix: use letters for labels"""),
    "more terms": (cupy_call("ij,jk,kl->il"), OperandError, """
the equation has 3 terms and the call has 2 operands
  ij,jk,kl->il
        ^^
  shapes: (2, 3) (3, 4)
  fix: give one term for each operand, with commas between them"""),
    "optimize": (cupy_call(optimize=1.5), ArgumentError, """
optimize=1.5 is neither a strategy nor a path
  ij,jk->ik
  ^^^^^
  shapes: (2, 3) (3, 4)
  fix: pass True, False, 'greedy', ('greedy', limit) or ['einsum_path', (0, 1), ...]"""),
    "no stream": (cupy_call(stream="fast"), ArgumentError, """
stream is a str, not a stream
  fix: pass a stream of CuPy's, torch's or Numba's, or the handle of one"""),
    "a stream for host arrays": (lambda gpu: einjit.einsum(PRODUCT, A, B, stream=3), ArgumentError, """
stream is for arrays on a GPU, and these are in host memory
  fix: leave stream out"""),
    "a stream for a function of them": (
        lambda gpu: difference(A[0], A[0], stream=3), ArgumentError, """
stream is for arrays on a GPU, and these are in host memory
  fix: leave stream out"""),
    "jit": (lambda gpu: jitted()(A, B), OperandError, """
operand 0 is in host memory, and this function runs on a GPU
  ij,jk->ik
  ^^
  fix: pass arrays on a GPU, or transfer=True to jit for copies"""),
    "jit, transfers in a stream": (lambda gpu: jitted(transfer=True)(A, B, stream=4), ArgumentError, """
stream is for arrays on a GPU, and these are in host memory
  fix: leave stream out"""),
    "jit, of both": (lambda gpu: jitted()(gpu.cupy_array(A), B), OperandError, """
operand 1 is in host memory, and operand 0 is on a GPU
  ij,jk->ik
     ^^
  fix: copy it there first: cupy.asarray(x)"""),
    "jit, of dates": (lambda gpu: jitted(transfer=True)(A, B.astype("M8[s]")), DtypeError, """
operand 1 has dtype datetime64[s], for which there are no kernels
  ij,jk->ik
     ^^
  shapes: (2, 3) (3, 4)
  fix: convert the operand"""),
    "jit, out": (lambda gpu: jitted(transfer=True)(A, B, out=[]), DtypeError, """
out is a list, not an array
  ij,jk->ik
         ^^
  shapes: (2, 3) (3, 4)
  fix: pass a NumPy array of the result's shape"""),
    "jit for nothing": (lambda gpu: einjit.jit(PRODUCT, target="gpu"), ArgumentError, """
target is 'gpu'
  fix: pass target='cpu' or target='cuda'"""),
    "a kernel's operands": (compiled(A), OperandError, """
this kernel takes 2 operands and got 1
  ij,jk->ik
     ^^
  fix: pass one array for each term"""),
    "a kernel's shapes": (compiled(A, B[:, :2]), OperandError, """
operand 1 has shape (3, 2), and this kernel was compiled for (3, 4)
  ij,jk->ik
     ^^
  shapes: (2, 3) (3, 2)
  fix: compile another kernel, or call einjit.einsum, which takes any shape"""),
    "a kernel's dtypes": (compiled(A.astype("float64"), B), DtypeError, """
operand 0 has dtype float64, and this kernel was compiled for float32
  ij,jk->ik
  ^^
  shapes: (2, 3) (3, 4)
  fix: compile another kernel, or call einjit.einsum, which takes any dtype"""),
    "compiled for an array that cannot be used": (
        lambda gpu: einjit.compile(PRODUCT, A, gpu.raw(B, version=1), target="cuda", cc=(8, 0)), OperandError, """
operand 1 has version 1 of __cuda_array_interface__
  ij,jk->ik
     ^^
  fix: use a release of its library that has version 2 or 3"""),
    "a capability": (lambda gpu: einjit.compile("i->", (3,), target="cuda", cc=(3, 5)), ArgumentError, """
cc is (3, 5), which is no compute capability that there are kernels for
  fix: pass one from (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), such as cc=(8, 0)"""),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(gpu, name):
    call, kind, text = ERRORS[name]
    with pytest.raises(EinjitError) as error:
        call(gpu)
    assert str(error.value) == text.strip("\n")
    assert type(error.value) is kind
    assert not gpu.driver.said("launch")


def test_a_stream_is_refused_where_a_program_is_at_hand_too():
    with einjit.options(handover="unsupported"):
        einjit.einsum(PRODUCT, A, B)
        with pytest.raises(ArgumentError, match="^stream is for arrays on a GPU"):
            einjit.einsum(PRODUCT, A, B, stream=3)


def test_bfloat16_without_ml_dtypes(gpu, monkeypatch):
    x = gpu.torch_tensor(np.ones(3, "bfloat16"))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(DtypeError) as error:
        einjit.einsum("i->", x)
    assert str(error.value) == """\
operand 0 has dtype bfloat16, which needs ml_dtypes, which is not installed
  i->
  ^
  fix: pip install ml_dtypes"""


# -- what is missing -------------------------------------------------------------------------------------

NO_PACKAGE = """\
CUDA kernels need Numba-CUDA, which is not installed
  fix: pip install 'einjit[cuda]'"""


@pytest.fixture
def without_numba_cuda(gpu, monkeypatch):
    monkeypatch.setattr(gpudriver, "_driver", None)
    monkeypatch.setitem(sys.modules, "numba_cuda", None)


@pytest.mark.parametrize("call", [
    lambda gpu: einjit.einsum(PRODUCT, gpu.cupy_array(A), gpu.cupy_array(B)),
    lambda gpu: einjit.tensordot(gpu.torch_tensor(A), gpu.torch_tensor(B), 1),
    lambda gpu: jitted(transfer=True)(A, B),
    lambda gpu: compiled(A, B)(gpu),
], ids=["einsum", "tensordot", "jit", "kernel"])
def test_without_numba_cuda_a_launch_says_so(gpu, without_numba_cuda, call):
    with pytest.raises(CudaUnavailable) as error:
        call(gpu)
    assert str(error.value) == NO_PACKAGE


def test_what_is_wrong_with_a_call_is_said_first(gpu, without_numba_cuda):
    with pytest.raises(OperandError):
        einjit.einsum(PRODUCT, gpu.cupy_array(A), B)


def test_without_a_device_compile_wants_its_capability(gpu, without_numba_cuda):
    with pytest.raises(ArgumentError) as error:
        einjit.compile("i->", (3,), target="cuda")
    assert str(error.value) == """\
cc is not given, and there is no device to take it from (CUDA kernels need Numba-CUDA, which is not installed)
  fix: pass the compute capability to compile for, such as cc=(8, 0)"""


def test_a_device_that_there_are_no_kernels_for(gpu):
    gpu.driver.cc = (12, 0)
    with pytest.raises(CudaUnavailable) as error:
        einjit.einsum("i->", gpu.cupy_array(A[0]))
    assert str(error.value) == """\
device 0 has compute capability (12, 0), for which there are no kernels
  fix: run this on a device of (7, 5) to (9, 0)"""


def test_import_and_calls_on_the_host_know_nothing_of_gpus():
    out = run_code("""
        import sys, warnings
        warnings.simplefilter("error")
        import numpy as np, einjit
        einjit.einsum("ij,jk->ik", np.ones((2, 3)), np.ones((3, 4)), dtype="float32", casting="unsafe", optimize=False)
        einjit.compile("ij,jk->ik", (9, 9), (9, 9))
        print([name for name in sys.modules if name.startswith(("numba_cuda.", "numba.cuda.", "cuda", "cupy", "torch"))
               or name in ("einjit.gpucall", "einjit.gpulaunch", "einjit.gpulibraries", "einjit.gpudriver")])
    """)
    assert out == "[]\n"
