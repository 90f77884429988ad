"""Writes what each instruction of csrc/simt/ptx.h answers: tests/facts/simt/instructions.npz, the golden file.

python tools/make_simt_golden.py            from the models, on the CPU: what holds until the next line has been run
python tools/make_simt_golden.py --device   from the GPU's own instructions; needs nvcc, compute capability 8.0 or later

The kernels are those of tests/simt/instructions.cu, compiled by g++ or nvcc. The file holds, for each instruction and
each kind of input, arrays of 32-bit words, "<instruction>.<kind>.in" [trials, 32 lanes, words] and ".out"; and
"origin", which is "model" or the GPU's name. Inputs are the same each time. tests/test_simt_golden.py compares the
models with the file, and a GPU if there is one:

  bits      moves, layouts, integers, conversions, and matrix products of small integers: every bit
  products  matrix products of random floats: within 2^-18 of the sum of the magnitudes that were added, since hardware
            adds the products of one instruction in an order of its own, and drops bits below 2^-22 of the largest
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "_build"))

from simt_library import FOLDER, build  # noqa: E402

from cuda_options import BuildError  # noqa: E402
from cuda_toolkit import find_toolkit, host_compiler  # noqa: E402

SOURCE = "tests/simt/instructions.cu"
FACTS = ROOT / "tests" / "facts" / "simt" / "instructions.npz"
LANES = 32
TRIALS = 2

Words = NDArray[np.uint32]


class Machine:
    """The instructions of one library: the models', or a GPU's."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        for function in ("list_instructions", "run_instruction", "name_machine"):
            getattr(self._library, function).restype = ctypes.c_char_p
        listed = self._library.list_instructions().decode().split()
        self.words = {
            name: (int(ins), int(outs)) for name, ins, outs in zip(*(listed[i::3] for i in range(3)), strict=True)
        }
        """(words in, words out) of a lane, by instruction."""
        self.name: str = self._library.name_machine().decode()

    def run(self, instruction: str, given: Words) -> Words:
        """What [trials, 32, words in] become: [trials, 32, words out].

        Raises:
            RuntimeError: the instruction failed; the message says how.
        """
        found = np.zeros((len(given), LANES, self.words[instruction][1]), np.uint32)
        for one, result in zip(np.ascontiguousarray(given, np.uint32), found, strict=True):
            pointers = (ctypes.c_void_p(array.ctypes.data) for array in (one, result))
            problem = self._library.run_instruction(instruction.encode(), *pointers).decode()
            if problem:
                raise RuntimeError(f"{instruction}: {problem}")
        return found


def models(compiler: Path) -> Machine:
    """The models, compiled by this C++ compiler."""
    return Machine(build("instructions", "plain", compiler, [SOURCE]))


def device() -> Machine:
    """The instructions themselves, on the GPU of this machine.

    Raises:
        BuildError: there is no nvcc, no GPU, or the kernels do not compile.
    """
    search = find_toolkit(os.environ, sys.path)
    if search.toolkit is None:
        raise BuildError(search.failure)
    library = FOLDER / "cuda" / "instructions.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    compile_for_device(search.toolkit.nvcc, library)
    machine = Machine(library)
    if machine.name.startswith("no device"):
        raise BuildError(machine.name)
    return machine


def compile_for_device(nvcc: Path, library: Path) -> None:
    """The library with code for compute capability 8.0, which the driver translates for later ones.

    Raises:
        BuildError: the kernels do not compile, with nvcc's words.
    """
    command = [str(nvcc), "-std=c++17", "-O2", "-arch=sm_80", "-shared", "-Xcompiler", "-fPIC", "-Icsrc"]
    done = subprocess.run([*command, SOURCE, "-o", str(library)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{SOURCE} does not compile:\n{done.stdout}{done.stderr}")


def inputs(instruction: str, words: int) -> dict[str, Words]:
    """The words that an instruction is given, by kind; of a seed that is the instruction's own."""
    draw = np.random.Generator(np.random.PCG64(zlib.crc32(instruction.encode())))
    shape = (TRIALS, LANES, words)
    if instruction.startswith("mma"):
        integers = _fragments(instruction, draw.integers(-8, 9, shape).astype(np.float32), draw)
        return {"bits": integers, "products": _fragments(instruction, draw.standard_normal(shape, np.float32), draw)}
    given = draw.integers(0, 2**32, shape, np.uint32)
    if instruction.startswith("shfl"):
        given[..., 1] %= LANES
    if instruction in ("any", "all_of"):  # of random lanes hardly ever none or all
        given[0] = instruction == "all_of"
    if instruction == "atomic_compare":
        given[:, ::2, 1] = given[:, ::2, 0]
    if instruction == "half_to_float" or instruction == "bfloat16_to_float":
        given %= 2**16
    if instruction.endswith("from_float") or instruction.startswith(("float_", "pack_", "to_tf32")):
        given[0] = _awkward(instruction, draw, words)
    return {"bits": given}


def _fragments(instruction: str, values: NDArray[np.float32], draw: np.random.Generator) -> Words:
    """Lanes' d (4 floats), a (4 registers) and b (2), from numbers of which 16-bit types take two a register."""
    found: Words = values.view(np.uint32).copy()
    if "tf32" in instruction:
        noise = draw.integers(0, 2**13, found[..., 4:].shape, np.uint32)
        found[..., 4:] = found[..., 4:] & ~np.uint32(2**13 - 1) | noise  # of which the hardware takes no notice
        return found
    low, high = values[..., 4:], np.roll(values[..., 4:], 1, axis=1)
    found[..., 4:] = _narrow(instruction, low) | _narrow(instruction, high) << np.uint32(16)
    return found


def _narrow(instruction: str, values: NDArray[np.float32]) -> Words:
    """float16's bits, or bfloat16's by truncation, which is exact for small integers and as good for random numbers."""
    if "fp16" in instruction:
        narrow: Words = values.astype(np.float16).view(np.uint16).astype(np.uint32)
    else:
        narrow = values.view(np.uint32) >> np.uint32(16)
    return narrow


def _awkward(instruction: str, draw: np.random.Generator, words: int) -> Words:
    """Floats at which a conversion or a comparison may go wrong: ties, the ends of the range, denormals, NaN, zeros."""
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 65504.0, 65519.0, 65520.0, 65536.0, 3.4e38, -3.4e38]
    small = [2.0**-14, 2.0**-24, 2.0**-25, 1.5 * 2.0**-24, 2.0**-26, 2.0**-15, 2.0**-126, 2.0**-140]
    ties = [1 + k * 2.0**-11 for k in range(1, 6)] + [1 + k * 2.0**-8 for k in range(1, 6)]
    values: Words = np.array([*edges, *small, *ties], np.float32).view(np.uint32)
    return values[draw.integers(0, len(values), (LANES, words))]


def golden(machine: Machine) -> dict[str, NDArray[Any]]:
    """The file's arrays, as this machine answers."""
    arrays: dict[str, NDArray[Any]] = {"origin": np.array(machine.name)}
    for instruction, (words, _) in machine.words.items():
        for kind, given in inputs(instruction, words).items():
            arrays[f"{instruction}.{kind}.in"] = given
            arrays[f"{instruction}.{kind}.out"] = machine.run(instruction, given)
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", action="store_true", help="ask the GPU, not the models")
    compiler = host_compiler(os.environ)
    if compiler is None:
        raise SystemExit("there is no C++ compiler (g++)")
    try:
        machine = device() if parser.parse_args().device else models(compiler)
    except BuildError as error:
        raise SystemExit(str(error)) from None
    FACTS.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(FACTS, allow_pickle=False, **golden(machine))
    print(f"{FACTS.relative_to(ROOT)}: {len(machine.words)} instructions, from {machine.name}")


if __name__ == "__main__":
    main()
