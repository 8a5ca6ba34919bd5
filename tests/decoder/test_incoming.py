"""Data messages at the store's door: coded pixels become sums and frames again, or the peer's session ends."""

import numpy as np
import pytest
from stream_examples import make_metadata

from framefold_decoder.store.incoming import Folded, unpack
from framefold_protocol import payload
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.errors import RemoteProtocolError
from framefold_protocol.messages import RawFrames, Snapshot
from framefold_protocol.noise import NoiseModel

STREAM = make_metadata(shape=(37, 70), dtype="uint16")
SUMS = np.random.default_rng(0).poisson(900, (37, 70)).astype(np.uint32)
HALF_SIGMA = VarianceStabilised(step=0.5)


def snapshot(packed: payload.Packed, **changes) -> Snapshot:
    return Snapshot(**({"position": 0, "first_frame": 0, "frames": 4, "timestamp_ns": 1} | vars(packed) | changes))


def test_sums_are_exact():
    packed = payload.pack(SUMS)
    assert packed.shift > 0
    found = unpack(snapshot(packed), STREAM)
    assert isinstance(found, Folded)
    assert np.array_equal(found.sums, SUMS)


def test_quantised_sums_are_within_their_bound():
    found = unpack(snapshot(payload.pack(SUMS, HALF_SIGMA), quantisation=HALF_SIGMA), STREAM)
    assert isinstance(found, Folded)
    assert found.sums.dtype == SUMS.dtype
    assert not np.array_equal(found.sums, SUMS)
    assert np.all(np.abs(found.sums - SUMS.astype(np.float64)) <= HALF_SIGMA.error_bound(SUMS))


def test_raw_frames_are_exact():
    frames = np.random.default_rng(0).poisson(900, (3, 37, 70)).astype(np.uint16)
    packed = payload.pack(frames)
    assert packed.shift > 0
    sent = RawFrames(0, 0, 3, 1, **vars(packed))
    assert np.array_equal(unpack(sent, STREAM), frames)


@pytest.mark.parametrize(
    "noise", [NoiseModel(1e-4), NoiseModel(2e6), NoiseModel(2.0, -1.0), NoiseModel(2.0, 2.0**41), NoiseModel(2.0, 0.0, 2.0**41)]
)
def test_noise_that_no_detector_has_is_refused(noise):
    with pytest.raises(RemoteProtocolError, match=r"position 0 has noise .*, expected a gain of 0.001 to 10\^6"):
        unpack(snapshot(payload.pack(SUMS), noise=noise), STREAM)


@pytest.mark.parametrize(
    "changes",
    [
        {"codec": "blosc2"},
        {"codec": "bins"},
        {"quantisation": HALF_SIGMA},
        {"base": 1},
        {"shift": 5},
        {"payload": b""},
        {"dtype": "uint16"},
    ],
)
def test_sums_of_another_header_are_refused(changes):
    packed = payload.pack(SUMS * np.uint32(1 + 10**6 * ("dtype" in changes)))  # what is above a byte says its type by its size
    with pytest.raises(RemoteProtocolError):
        unpack(snapshot(packed, **changes), STREAM)
