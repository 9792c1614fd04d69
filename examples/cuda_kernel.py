"""A kernel for a GPU that need not be there: its loop nest, what it takes of a multiprocessor, and its source."""

from __future__ import annotations

import einjit
from einjit.codegen.gpubuild import CudaUnavailable
from einjit.occupancy import occupancy

try:
    kernel = einjit.compile("bij,bjk->bik", (16, 512, 256), (16, 256, 512), dtype="float32", target="cuda", cc=(8, 0))
except CudaUnavailable:
    print("Kernels for GPUs need Numba-CUDA, and no GPU: pip install 'einjit[cuda]'.")
else:
    (step,) = kernel.steps
    taken = kernel.resources
    print(f"{kernel}\n\n{kernel.nest}\n")
    print(f"{step.launch.grid} blocks of {step.launch.block} threads\n{taken}")
    print(f"{occupancy(kernel.device, step.launch.block, taken.registers, taken.shared)}\n")
    print("\n".join(kernel.source.splitlines()[:40]))
