"""The virtual microscope: seeded in-situ TEM movies whose truth is known.

`Movie(MovieSpec(shape=(512, 512), dose=20.0, seed=0))` gives expected counts (`clean`) and Poisson counts about them (`counts`,
`counts_into`). The `sim:` source, the demo, tests, benchmarks and training all draw from it. numpy and numba only.
"""

from __future__ import annotations

from framefold_simulator.movie import Movie, MovieSpec

__all__ = ["Movie", "MovieSpec"]
