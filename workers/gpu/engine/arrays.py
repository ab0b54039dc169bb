"""Serialization of int32 arrays, which is how a step travels to the other ranks of a tensor-parallel group."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int32]


def encode_arrays(arrays: Sequence[Integers]) -> bytes:
    """One-dimensional arrays as bytes: their number, their lengths, their contents."""
    lengths = [len(array) for array in arrays]
    return np.concatenate([np.array([len(arrays), *lengths], np.int32), *arrays]).tobytes()


def decode_arrays(data: bytes) -> list[Integers]:
    """Parse the output of ``encode_arrays``."""
    numbers = np.frombuffer(data, np.int32).copy()
    count = int(numbers[0])
    lengths = numbers[1 : 1 + count]
    ends = np.cumsum(lengths) + 1 + count
    return [numbers[end - length : end] for end, length in zip(ends, lengths, strict=True)]
