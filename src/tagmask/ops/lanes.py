"""Eight float32 numbers that compiled code handles at once, as the vector units of a processor do.

The compiler behind numba finds such groups by itself only in simple long loops. The rows of a CRF are short, one number
for each class, and there its own choice took four times as long. Needs numba; only `compiled_crf` and `compiled_par`
import this module, and only where numba is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic
from numba.extending import models, register_model

COUNT = 8
_FLOATS = ir.VectorType(ir.FloatType(), COUNT)
_INTEGERS = ir.VectorType(ir.IntType(32), COUNT)
intrinsic: Any = _intrinsic  # compiled functions call what it makes without the first parameter
_FIRST = ir.Constant(ir.IntType(32), 0)
# exp(x) by 2^k exp(r), |r| <= ln(2) / 2: ln(2) in two parts, and the polynomial of exp(r), highest power first. The
# numbers are those of the Cephes library (expf); the error is one unit in the last place.
_LN2 = 0.693359375, -2.12194440e-4
_POLYNOMIAL = 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1
_LARGEST_EXPONENT = 88.0
_LEAST_EXPONENT = -87.0  # what lies below counts as 0: float32 would lose its precision, and the processor its speed


class _LanesType(types.Type):
    """The type of eight floats in compiled functions."""

    def __init__(self) -> None:
        super().__init__("Lanes")


LANES = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    """Holds them in one vector register."""

    def __init__(self, manager: Any, front: types.Type) -> None:
        super().__init__(manager, front, _FLOATS)


def _constant(value: float, kind: ir.VectorType = _FLOATS) -> ir.Constant:
    return ir.Constant(kind, [value] * COUNT)


def _address(context: Any, builder: ir.IRBuilder, array: Any, values: Any) -> Any:
    """Give the address of an array's element `values[1]` as that of eight floats."""
    data = context.make_array(array)(context, builder, values[0]).data
    return builder.bitcast(builder.gep(data, [values[1]]), _FLOATS.as_pointer())


def _spread(builder: ir.IRBuilder, scalar: Any) -> Any:
    """Put one float into all eight places."""
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(undefined, scalar, _FIRST), undefined, _constant(0, _INTEGERS))


def _multiply_add(builder: ir.IRBuilder, a: Any, b: Any, c: Any) -> Any:
    """Compute a * b + c, in one instruction where the processor has one."""
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{COUNT}f32"), [a, b, c])


def _reduced(builder: ir.IRBuilder, value: Any, pair: Callable[[Any, Any], Any]) -> Any:
    """Combine eight floats into one, pair by pair."""
    for step in (4, 2, 1):
        turned = ir.Constant(_INTEGERS, [(place + step) % COUNT for place in range(COUNT)])
        value = pair(value, builder.shuffle_vector(value, value, turned))
    return builder.extract_element(value, _FIRST)


@intrinsic
def load(typing: Any, array: Any, start: Any) -> Any:
    """Read eight floats of a flat float32 array, from element `start` (int64) on."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], values), align=4)

    return LANES(array, types.int64), code


@intrinsic
def store(typing: Any, array: Any, start: Any, value: Any) -> Any:
    """Write eight floats into a flat float32 array, from element `start` (int64) on."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _address(context, builder, signature.args[0], values), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, LANES), code


@intrinsic
def every(typing: Any, scalar: Any) -> Any:
    """Give eight times the same float32."""
    return LANES(types.float32), lambda context, builder, signature, values: _spread(builder, values[0])


@intrinsic
def add(typing: Any, a: Any, b: Any) -> Any:
    """Compute a + b."""
    return LANES(LANES, LANES), lambda context, builder, signature, values: builder.fadd(*values)


@intrinsic
def add_scaled(typing: Any, a: Any, factor: Any, b: Any) -> Any:
    """Compute a + factor * b with one float32 as the factor."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _multiply_add(builder, _spread(builder, values[1]), values[2], values[0])

    return LANES(LANES, types.float32, LANES), code


@intrinsic
def scaled(typing: Any, factor: Any, a: Any) -> Any:
    """Compute factor * a with one float32 as the factor."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fmul(_spread(builder, values[0]), values[1])

    return LANES(types.float32, LANES), code


@intrinsic
def total(typing: Any, a: Any) -> Any:
    """Give the sum of the eight, a float32."""
    return types.float32(LANES), lambda context, builder, signature, values: _reduced(builder, values[0], builder.fadd)


@intrinsic
def exp(typing: Any, a: Any) -> Any:
    """Compute exp(a); 0 where a is below -87, and exp(88) where it is above 88."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        x = values[0]
        counts = builder.fcmp_ordered(">", x, _constant(_LEAST_EXPONENT))
        x = builder.select(counts, x, _constant(_LEAST_EXPONENT))
        x = builder.select(builder.fcmp_ordered("<", x, _constant(_LARGEST_EXPONENT)), x, _constant(_LARGEST_EXPONENT))
        # x = k ln(2) + r; the conversion cuts off towards 0, so it is made where all is positive.
        shifted = _multiply_add(builder, x, _constant(1.44269504), _constant(128.5))
        power = builder.sub(builder.fptosi(shifted, _INTEGERS), _constant(128, _INTEGERS))
        for part in _LN2:
            x = _multiply_add(builder, builder.sitofp(power, _FLOATS), _constant(-part), x)
        result = _constant(_POLYNOMIAL[0])
        for coefficient in _POLYNOMIAL[1:]:
            result = _multiply_add(builder, result, x, _constant(coefficient))
        result = _multiply_add(builder, builder.fmul(result, x), x, builder.fadd(x, _constant(1.0)))
        # 2^k: k in the place of a float's exponent.
        bits = builder.shl(builder.add(power, _constant(127, _INTEGERS)), _constant(23, _INTEGERS))
        return builder.select(counts, builder.fmul(result, builder.bitcast(bits, _FLOATS)), _constant(0.0))

    return LANES(LANES), code
