"""Compiled functions, also where their code can be kept nowhere."""

from __future__ import annotations

import numpy as np
from numba.core import caching

from framefold_protocol import compiled as module
from framefold_protocol.compiled import compiled


def test_where_compiled_code_cannot_be_kept_it_is_compiled_anew_and_said_once(monkeypatch, caplog):
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    module._tell.cache_clear()

    @compiled()
    def total(values):
        return values.sum()

    @compiled()
    def twice(values):
        return 2 * total(values)

    assert twice(np.arange(4)) == 12
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "set NUMBA_CACHE_DIR" in caplog.text
