"""Products with a table that was turned once are those with the table."""

from __future__ import annotations

import numpy as np
import pytest

from tastemaker.index.products import AT_ONCE, Products


@pytest.mark.parametrize("queries", [0, 1, 2, AT_ONCE, AT_ONCE + 1, 4 * AT_ONCE])
@pytest.mark.parametrize("rows", [0, 1, 50])
def test_products_are_those_of_the_rows(queries: int, rows: int) -> None:
    random = np.random.default_rng(queries)
    table, asked = random.standard_normal((rows, 12), dtype=np.float32), random.standard_normal((queries, 12), dtype=np.float32)
    found = Products(table).of(asked)
    assert found.dtype == np.float32
    assert found.flags.writeable
    assert found == pytest.approx(asked @ table.T, abs=1e-5)
