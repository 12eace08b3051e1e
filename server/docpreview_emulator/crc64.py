"""CRC-64/ECMA-182 as the cloud computes it (`x-cos-hash-crc64ecma`): reflected, all bits set before and inverted after.

The bytes are one polynomial over GF(2), held in a large integer, whose upper half is folded onto the lower one until
the remainder is left. So all the work is shifts of large integers, which Python does in C.
"""

from functools import cache

_BITS = 64
_PIECE = 256 * 1024
"""Bytes of an integer that fits into a processor's cache."""

_ONES = (1 << _BITS) - 1
_POLYNOMIAL = (1 << _BITS) | 0x42F0E1EBA9EA3693
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Crc64:
    """The checksum of the bytes given to `update`."""

    def __init__(self) -> None:
        self._remainder = _ONES

    def update(self, data: bytes) -> None:
        """Append."""
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            length = 8 * len(piece)
            dividend = int.from_bytes(piece.translate(_REVERSED), "big") << _BITS
            self._remainder = _modulo(dividend ^ (self._remainder << length), length + _BITS)

    @property
    def decimal(self) -> str:
        """The checksum of all bytes so far, as headers have it."""
        return str(int(f"{self._remainder ^ _ONES:064b}"[::-1], 2))


def _modulo(value: int, bits: int) -> int:
    """The remainder of a polynomial of at most so many bits."""
    while bits > 2 * _BITS:
        half = -(-bits // (2 * _BITS)) * _BITS
        upper, value = value >> half, value & ((1 << half) - 1)
        for shift in _power(half):
            value ^= upper << shift
        bits = max(half, bits - half + _BITS)
    while value > _ONES:
        value ^= _POLYNOMIAL << (value.bit_length() - _BITS - 1)
    return value


@cache
def _power(exponent: int) -> tuple[int, ...]:
    """The powers of x that add up to the remainder of x to this one."""
    result, square = 1, 2
    while exponent:
        if exponent & 1:
            result = _product(result, square)
        square = _product(square, square)
        exponent >>= 1
    return tuple(power for power in range(_BITS) if result >> power & 1)


def _product(one: int, other: int) -> int:
    result = 0
    while other:
        if other & 1:
            result ^= one
        one, other = one << 1, other >> 1
        if one > _ONES:
            one ^= _POLYNOMIAL
    return result
