"""Direct solutions with three and five bands, eliminated from both ends at once."""

from mfpde.arrays import FloatArray
from mfpde.compile import sum_kernel


@sum_kernel
def factor_three(low: FloatArray, diagonal: FloatArray, up: FloatArray, dt: float, factors: FloatArray) -> None:
    """Factors of 1 + dt A, eliminated from both ends at once towards the middle, so that two chains of divisions run side by side.

    ``factors`` (3, n): multipliers of the forward pass, inverse pivots, and what couples a cell to its neighbour towards the middle over
    the pivot; in the middle cell the multipliers from either side.
    """
    n = low.size
    middle = n // 2
    forward, inverse, back = factors[0], factors[1], factors[2]
    inverse[0], inverse[n - 1] = 1.0 / (1.0 + dt * diagonal[0]), 1.0 / (1.0 + dt * diagonal[n - 1])
    back[0], back[n - 1] = dt * up[0] * inverse[0], dt * low[n - 1] * inverse[n - 1]
    for i in range(1, n - 1 - middle):
        j = n - 1 - i
        one, two = dt * low[i], dt * up[j]
        inverse[j] = 1.0 / (1.0 + dt * diagonal[j] - two * back[j + 1])
        back[j] = dt * low[j] * inverse[j]
        forward[j] = two * inverse[j + 1]
        inverse[i] = 1.0 / (1.0 + dt * diagonal[i] - one * back[i - 1])
        back[i] = dt * up[i] * inverse[i]
        forward[i] = one * inverse[i - 1]
    for i in range(n - 1 - middle, middle):
        inverse[i] = 1.0 / (1.0 + dt * diagonal[i] - dt * low[i] * back[i - 1])
        back[i] = dt * up[i] * inverse[i]
        forward[i] = dt * low[i] * inverse[i - 1]
    one, two = dt * low[middle], dt * up[middle]
    inverse[middle] = 1.0 / (1.0 + dt * diagonal[middle] - one * back[middle - 1] - two * back[middle + 1])
    forward[middle], back[middle] = one * inverse[middle - 1], two * inverse[middle + 1]


@sum_kernel
def solve_three(factors: FloatArray, values: FloatArray) -> None:
    """Solve with these factors, in place."""
    n = values.size
    middle = n // 2
    forward, inverse, back = factors[0], factors[1], factors[2]
    top, bottom = values[0], values[n - 1]
    for i in range(1, n - 1 - middle):
        j = n - 1 - i
        values[i - 1], values[j + 1] = top * inverse[i - 1], bottom * inverse[j + 1]
        top, bottom = values[i] - forward[i] * top, values[j] - forward[j] * bottom
    values[n - 2 - middle], values[middle + 1] = top * inverse[n - 2 - middle], bottom * inverse[middle + 1]
    for i in range(n - 1 - middle, middle):
        top = values[i] - forward[i] * top
        values[i] = top * inverse[i]
    last = (values[middle] - forward[middle] * top - back[middle] * bottom) * inverse[middle]
    values[middle] = last
    top, bottom = last, last
    for i in range(middle - 1, n - 2 - middle, -1):
        top = values[i] - back[i] * top
        values[i] = top
    for i in range(n - 2 - middle, -1, -1):
        j = n - 1 - i
        top, bottom = values[i] - back[i] * top, values[j] - back[j] * bottom
        values[i], values[j] = top, bottom


@sum_kernel
def factor_five(bands: FloatArray) -> None:
    """Factors, in place, of a matrix with ``bands`` (n, 5), eliminated from both ends towards the two cells in the middle.

    Above them: two multipliers, the inverse pivot, and the two upper bands over the pivots; below them the mirror image. The middle rows
    keep three multipliers and their block of two by two. Without pivoting: conservative upwind Jacobians are dominant by columns.
    """
    n = bands.shape[0]
    upper, lower = n // 2 - 1, n // 2
    first_two, second_two, inverse_two, first_one, second_one, inverse_one = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    third_two, fourth_two, reverse_two, third_one, fourth_one, reverse_one = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n - 1 - lower):
        if i < upper:
            far = bands[i, 0]
            near = bands[i, 1] - far * first_two
            inverse = 1.0 / (bands[i, 2] - far * second_two - near * first_one)
            bands[i, 0], bands[i, 1], bands[i, 2] = far * inverse_two, near * inverse_one, inverse
            bands[i, 3], bands[i, 4] = (bands[i, 3] - near * second_one) * inverse, bands[i, 4] * inverse
            first_two, second_two, inverse_two = first_one, second_one, inverse_one
            first_one, second_one, inverse_one = bands[i, 3], bands[i, 4], inverse
        j = n - 1 - i
        far = bands[j, 4]
        near = bands[j, 3] - far * third_two
        inverse = 1.0 / (bands[j, 2] - far * fourth_two - near * third_one)
        bands[j, 4], bands[j, 3], bands[j, 2] = far * reverse_two, near * reverse_one, inverse
        bands[j, 1], bands[j, 0] = (bands[j, 1] - near * fourth_one) * inverse, bands[j, 0] * inverse
        third_two, fourth_two, reverse_two = third_one, fourth_one, reverse_one
        third_one, fourth_one, reverse_one = bands[j, 1], bands[j, 0], inverse
    far, across = bands[upper, 0], bands[upper, 4]
    near = bands[upper, 1] - far * first_two
    bands[upper, 2] += -far * second_two - near * first_one - across * fourth_one
    bands[upper, 3] += -near * second_one - across * third_one
    bands[upper, 0], bands[upper, 1], bands[upper, 4] = far * inverse_two, near * inverse_one, across * reverse_one
    far, across = bands[lower, 4], bands[lower, 0]
    near = bands[lower, 3] - far * third_two
    bands[lower, 2] += -far * fourth_two - near * third_one - across * second_one
    bands[lower, 1] += -near * fourth_one - across * first_one
    bands[lower, 4], bands[lower, 3], bands[lower, 0] = far * reverse_two, near * reverse_one, across * inverse_one


@sum_kernel
def solve_five(bands: FloatArray, values: FloatArray) -> None:
    """Solve with these factors, in place."""
    n = values.size
    upper, lower = n // 2 - 1, n // 2
    one, two, three, four = 0.0, 0.0, 0.0, 0.0
    for i in range(n - 1 - lower):
        if i < upper:
            value = values[i] - bands[i, 0] * two - bands[i, 1] * one
            values[i] = value * bands[i, 2]
            two, one = one, value
        j = n - 1 - i
        value = values[j] - bands[j, 4] * four - bands[j, 3] * three
        values[j] = value * bands[j, 2]
        four, three = three, value
    here = values[upper] - bands[upper, 0] * two - bands[upper, 1] * one - bands[upper, 4] * three
    there = values[lower] - bands[lower, 4] * four - bands[lower, 3] * three - bands[lower, 0] * one
    scale = 1.0 / (bands[upper, 2] * bands[lower, 2] - bands[upper, 3] * bands[lower, 1])
    one, two = (bands[lower, 2] * here - bands[upper, 3] * there) * scale, (bands[upper, 2] * there - bands[lower, 1] * here) * scale
    values[upper], values[lower] = one, two
    three, four = two, one
    for k in range(n - 1 - lower):
        i, j = upper - 1 - k, lower + 1 + k
        if i >= 0:
            value = values[i] - bands[i, 4] * two - bands[i, 3] * one
            values[i] = value
            two, one = one, value
        value = values[j] - bands[j, 0] * four - bands[j, 1] * three
        values[j] = value
        four, three = three, value
