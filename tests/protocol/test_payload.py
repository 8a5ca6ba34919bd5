"""Pixels to payload and back: exactly, or within the stated bound; whatever is not what was promised is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from framefold_protocol import payload, planes, wire
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.errors import InputError, RemoteProtocolError
from framefold_protocol.messages import Snapshot
from strategies import quantisations

VECTORS = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "payloads.json").read_text())


def vector(case: dict) -> tuple:
    """The arguments of `decode`."""
    packed = payload.Packed(case["dtype"], case["codec"], bytes.fromhex(case["payload"]), case["base"], case["shift"])
    return packed, tuple(case["shape"]), VarianceStabilised(**case["quantisation"]) if case["quantisation"] else None


shapes = st.tuples(st.integers(1, 5), st.integers(1, 70))
kinds = st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64])


@st.composite
def pixel_arrays(draw, largest=2**64):
    """Shot noise about a mean anywhere in the dtype's range, and its two ends; also big-endian and transposed."""
    kind, shape, seed = draw(kinds), draw(shapes), draw(st.integers(0, 99))
    top = min(np.iinfo(kind).max, largest)
    mean = min(2.0 ** draw(st.floats(0, 63)), top)
    pixels = np.random.default_rng(seed).normal(mean, math.sqrt(mean), shape).clip(0, 0.999 * top).astype(kind)
    if draw(st.booleans()):
        pixels[0, 0], pixels[-1, -1] = top, 0
    return draw(st.sampled_from([pixels, pixels.T, pixels.astype(pixels.dtype.newbyteorder(">"))]))


@given(pixel_arrays())
@settings(max_examples=100, deadline=None)
def test_lossless_is_lossless(pixels):
    found = payload.decode(payload.pack(pixels), pixels.shape)
    assert found.dtype == pixels.dtype.newbyteorder("=")
    assert np.array_equal(found, pixels)


@given(pixel_arrays(largest=2**40), quantisations)
@settings(max_examples=200, deadline=None)
def test_near_lossless_stays_within_its_bound(pixels, quantisation):
    found = payload.decode(payload.pack(pixels, quantisation), pixels.shape, quantisation)
    counts = pixels.astype(np.float64)
    assert found.dtype == pixels.dtype.newbyteorder("=")
    assert np.all(np.abs(found - counts) <= quantisation.error_bound(counts) * (1 + 1e-9))
    again = payload.decode(payload.pack(found, quantisation), found.shape, quantisation)
    assert np.array_equal(again, found)  # a second time costs nothing


@given(quantisations, st.floats(0, 1e6))
def test_the_bound_is_what_the_specification_says(quantisation, counts):
    gain, offset, noise, step = (getattr(quantisation, name) for name in ("gain", "offset", "read_noise", "step"))
    sigma = math.sqrt(gain * max(counts - offset, 0) + 3 / 8 * gain**2 + noise**2)
    assert quantisation.sigma(counts) == pytest.approx(sigma)
    assert quantisation.error_bound(counts) == pytest.approx(step / 2 * sigma + gain * step**2 / 16 + 1 / 2)


@given(quantisations)
@settings(deadline=None)
def test_bins_rise_with_the_counts(quantisation):
    counts = np.arange(2**16, dtype=np.uint16)
    bins = quantisation.quantise(counts)
    assert bins[0] == 0
    assert np.all(np.diff(bins.astype(np.int64)) >= 0)
    assert np.all(bins <= counts)
    assert quantisation.restore(bins, counts.dtype)[0] == 0


@given(quantisations, pixel_arrays(largest=2**16 - 1))
@settings(deadline=None)
def test_every_type_has_the_same_bins(quantisation, pixels):
    wide = quantisation.quantise(pixels.astype(np.uint32))
    assert np.array_equal(quantisation.quantise(pixels), wide)
    assume(pixels.max() <= np.iinfo(np.uint16).max)
    assert np.array_equal(quantisation.quantise(pixels.astype(np.uint16)), wide)


def test_bins_that_fit_a_byte_take_a_byte():
    quantisation = VarianceStabilised()
    bins = quantisation.quantise(np.arange(2**16, dtype=np.uint16))
    for number, dtype in ((255, np.uint8), (256, np.uint16)):
        largest = np.flatnonzero(bins == number)[[0, -1]].astype(np.uint16)
        assert quantisation.quantise(largest).dtype == dtype
        assert quantisation.quantise(largest).tolist() == [number, number]


def test_few_electrons_come_back_exactly():
    few = np.arange(4, dtype=np.uint16)  # a bin of half a sigma is narrower than a count up to 3 electrons
    quantisation = VarianceStabilised(step=0.5)
    assert quantisation.restore(quantisation.quantise(few), few.dtype).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("mean", [5, 100, 1000])
def test_quantisation_adds_the_noise_it_says_and_little_bias(mean):
    counts = np.random.default_rng(0).poisson(mean, (512, 512)).astype(np.uint16)
    quantisation = VarianceStabilised(step=0.5)
    errors = quantisation.restore(quantisation.quantise(counts), counts.dtype) - counts.astype(np.float64)
    assert abs(errors.mean()) < 0.05 * math.sqrt(mean)
    assert errors.var() < 1.2 * 0.5**2 / 12 * mean


def test_a_step_is_in_units_of_read_noise_and_gain():
    counts = np.arange(2**16, dtype=np.uint16)
    bins = VarianceStabilised(gain=10, offset=2000, read_noise=30, step=0.5).quantise(counts).astype(np.int64)
    assert np.searchsorted(bins, bins[1000] + 10) - 1000 == pytest.approx(10 * 0.5 * 30.6, rel=0.1)  # sigma^2 = 30^2 + 37.5
    assert np.searchsorted(bins, bins[42000] + 10) - 42000 == pytest.approx(10 * 0.5 * 633, rel=0.1)  # plus 10 * 40000


def test_parameters_of_a_frame_become_those_of_a_sum():
    frame = VarianceStabilised(gain=2, offset=3, read_noise=4)
    assert frame.summed(5, 5) == replace(frame, offset=15, read_noise=4 * math.sqrt(5))
    assert VarianceStabilised().summed(3, 9) == VarianceStabilised()


@given(quantisations, st.integers(1, 20), st.integers(0, 20), st.integers(0, 2**16))
def test_a_sum_of_unknown_exposure_is_never_coded_coarser_than_its_noise(frame, fewest, more, counts):
    stated = frame.summed(fewest, fewest + more)
    for exposure in (fewest, fewest + more):
        above = max(counts - exposure * frame.offset, -exposure * frame.offset)
        variance = frame.gain * above + exposure * frame.read_noise**2 + 0.375 * frame.gain**2
        assume(counts >= max(exposure * frame.offset, stated.offset))
        assert stated.sigma(counts) <= math.sqrt(variance) * (1 + 1e-9)


@pytest.mark.parametrize("mean", [0.05, 0.5, 5, 20, 100, 256, 1000, 10000])
def test_exact_counts_cost_little_more_than_their_entropy(mean):
    pixels = np.random.default_rng(0).poisson(mean, (512, 512)).astype(np.uint16)
    _, times = np.unique(pixels, return_counts=True)
    entropy = -np.sum(times / pixels.size * np.log2(times / pixels.size))
    allowed = 1.05 * entropy if mean >= 5 else entropy + 0.3  # a byte of two pixels costs a bit at least
    assert 8 * len(payload.pack(pixels).payload) / pixels.size < allowed


@pytest.mark.parametrize("quantised", [None, {}, {"gain": 2.5, "offset": 100.0, "read_noise": 4.0, "step": 1.0}])
def test_packed_pixels_travel_in_a_snapshot(quantised):
    pixels = np.random.default_rng(0).poisson(900, (50, 70)).astype(np.uint16)
    quantisation = None if quantised is None else VarianceStabilised(**quantised)
    packed = payload.pack(pixels, quantisation)
    sent = Snapshot(0, 0, 20, 0, **vars(packed), quantisation=quantisation)
    found = wire.decode(wire.encode(sent))
    assert found == sent
    expected = payload.decode(packed, (50, 70), quantisation)
    assert np.array_equal(payload.decode(found, (50, 70), found.quantisation), expected)


@given(
    kinds.map(np.dtype),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.integers(0, 99),
    st.sampled_from(["anything", "flat", "slope"]),
    st.integers(0, 63),
)
@settings(max_examples=100, deadline=None)
def test_planes_hold_every_value(kind, shape, seed, scene, shift):
    shift %= 8 * kind.itemsize
    if scene == "anything":
        values = np.random.default_rng(seed).integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)
    else:
        values = (np.full(shape, seed) if scene == "flat" else np.add.outer(*map(np.arange, shape))).astype(kind)
    layout, found = planes.split(values, shift, np.empty(planes.most_bytes(shape, kind), np.uint8))
    assert (layout.shape, layout.shift) == (shape, shift)
    assert layout.kind == ("uint8" if values.max() >> shift < 256 else kind)
    assert found.size == layout.size
    joined = np.empty(shape, kind)
    planes.join(found, layout, joined)
    assert np.array_equal(joined, values)


@pytest.mark.parametrize("width", [1, 7, 1000, 2048, 2**14 + 1, 2**15, 40000])
def test_stripes_are_those_of_the_specification(width):
    rows = 32 * max(1, 2**15 // width)
    assert planes.stripes((2 * rows + 1, width)) == [slice(0, rows), slice(rows, 2 * rows), slice(2 * rows, 2 * rows + 1)]


@pytest.mark.parametrize("shape", [(1100, 1000), (3, 200, 2000), (70, 40000), (5, 1, 7)])
def test_large_images_are_coded_in_stripes(shape):
    counts = np.random.default_rng(0).poisson(100, shape).astype(np.uint16)
    counts[..., -1, -1] = 65535  # the last stripe is wide
    packed = payload.pack(counts)
    assert np.array_equal(payload.decode(packed, shape), counts)
    for cut in (packed.payload[:-1], packed.payload[: len(packed.payload) // 2], packed.payload * 2):
        with pytest.raises(RemoteProtocolError):
            payload.decode(replace(packed, payload=cut), shape)


@pytest.mark.parametrize(("mean", "lowest"), [(1, 0), (5, 1), (20, 2), (100, 3), (1000, 5), (10000, 6)])
def test_the_lowest_bits_are_those_that_noise_fills(mean, lowest):
    counts = np.random.default_rng(0).poisson(mean, (256, 256)).astype(np.uint16)
    assert planes.choose_shift(counts) == lowest
    counts[100, 100] = 65535  # a hot pixel is no noise
    assert planes.choose_shift(counts) == lowest
    assert np.array_equal(payload.decode(payload.pack(counts), counts.shape), counts)


@pytest.mark.parametrize("mean", [20, 100, 1000])
def test_half_a_sigma_costs_three_bits_at_any_dose(mean):
    pixels = np.random.default_rng(0).poisson(mean, (512, 512)).astype(np.uint16)
    entropy = 0.5 * math.log2(2 * math.pi * math.e) + 1  # bits, of a normal deviate in bins of half a sigma
    assert 8 * len(payload.pack(pixels, VarianceStabilised()).payload) / pixels.size < 1.05 * entropy


# --- refused


@pytest.mark.parametrize(("name", "low", "high"), [
    ("gain", 1e-3, 1e6), ("offset", 0, 2**40), ("read_noise", 0, 2**40), ("step", 0.01, 4),
])  # fmt: skip
def test_absurd_parameters_are_refused_by_name(name, low, high):
    for value in (math.nan, math.inf, -math.inf, -1.0, low - 1e-4, high * 1.01):
        with pytest.raises(InputError, match=f"quantisation {name} is"):
            VarianceStabilised(**{name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 1e300, "1", None, True])
def test_absurd_parameters_of_a_peer_cost_its_session(value):
    good = Snapshot(0, 0, 20, 0, "uint16", "anscombe", b"", quantisation=VarianceStabilised())
    object.__setattr__(good.quantisation, "gain", value)
    with pytest.raises(RemoteProtocolError, match="gain is"):
        wire.decode(wire.encode(good))


@given(st.binary(max_size=300), st.none() | quantisations)
def test_a_payload_of_garbage_is_refused(coded, quantisation):
    for codec in ("bins", "anscombe") if quantisation else ("planes", "blosc2"):
        with pytest.raises(RemoteProtocolError):
            payload.decode(payload.Packed("uint16", codec, coded), (50, 70), quantisation)


@given(st.data(), st.none() | quantisations)
@settings(deadline=None)
def test_a_damaged_payload_is_decoded_or_refused(data, quantisation):
    pixels = np.random.default_rng(0).poisson(60, (50, 70)).astype(np.uint16)
    packed = payload.pack(pixels, quantisation)
    damaged = bytearray(packed.payload)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:  # the message's checksum is what notices every damage
        found = payload.decode(replace(packed, payload=bytes(damaged)), pixels.shape, quantisation)
    except RemoteProtocolError:
        return
    assert (found.dtype, found.shape) == (pixels.dtype, pixels.shape)


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["why"])
def test_a_payload_that_is_not_what_was_promised_is_refused(case):
    with pytest.raises(RemoteProtocolError, match=case["named"]) as caught:
        payload.decode(*vector(case))
    assert caught.value.code == case["code"]


def test_a_truncated_payload_is_refused():
    packed = payload.pack(np.random.default_rng(0).poisson(60, (50, 70)).astype(np.uint16))
    coded = packed.payload
    for cut in (coded[:-1], coded[: len(coded) // 2], coded + b"x"):
        with pytest.raises(RemoteProtocolError):
            payload.decode(replace(packed, payload=cut), (50, 70))


@pytest.mark.parametrize(
    "pixels", [np.zeros((0, 3), np.uint16), np.zeros((3, 0), np.uint8), np.zeros((3, 3)), np.zeros(3, bool)]
)
def test_what_is_no_pixels_is_not_coded(pixels):
    with pytest.raises(InputError, match=str(pixels.dtype)):
        payload.pack(pixels)


# --- vectors


@pytest.mark.parametrize("case", VECTORS["payloads"], ids=lambda case: case["what"])
def test_payloads_of_the_vectors_are_decoded(case):
    found = payload.decode(*vector(case))
    assert found.dtype == case["dtype"]
    assert found.tolist() == case["pixels"]


@pytest.mark.parametrize("case", VECTORS["bins"], ids=lambda case: str(case["quantisation"]))
@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_bins_of_the_vectors(case, dtype):
    quantisation = VarianceStabilised(**case["quantisation"])
    bins = quantisation.quantise(np.array(case["counts"], dtype))
    assert bins.tolist() == case["bins"]
    assert quantisation.restore(bins, dtype).tolist() == case["restored"]
