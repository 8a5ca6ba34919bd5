"""What this computer's processor can do and others cannot."""

from __future__ import annotations

from functools import cache

from llvmlite.binding import get_host_cpu_features


@cache
def multiplies_bfloat16() -> bool:
    """Whether it has x86's instructions for products of bfloat16 (AVX512-BF16); where not, libraries imitate them, far slower
    than float32."""
    return bool(get_host_cpu_features().get("avx512bf16"))
