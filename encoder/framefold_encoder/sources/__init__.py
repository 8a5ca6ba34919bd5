"""Where frames come from: files, the simulator, detectors. Each module is one kind of source; `base` is what they all offer.

`open_source("file:movie.tif")` is the way in. Nothing here folds, buffers or sends.
"""

from __future__ import annotations

from framefold_encoder.sources.base import Source, SourceInfo
from framefold_encoder.sources.open import open_source

__all__ = ["Source", "SourceInfo", "open_source"]
