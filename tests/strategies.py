"""Hypothesis strategies for every message of the link."""

from hypothesis import strategies as st

from framefold_protocol import messages
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.masks import MaskSpec
from framefold_protocol.noise import NoiseModel

naturals = st.integers(0, 2**63 - 1)
dtypes = st.sampled_from(["uint8", "uint16", "uint32"])
streams = st.builds(
    messages.StreamMetadata,
    stream_id=st.text("0123456789abcdef", min_size=32, max_size=32),
    name=st.text(max_size=20),
    shape=st.tuples(st.integers(1, 10**5), st.integers(1, 10**5)),
    dtype=dtypes,
    families=st.lists(st.builds(MaskSpec, ratio=st.integers(1, 256)), min_size=1, max_size=3).map(tuple),
    mask_digests=st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=3).map(tuple),
    created_unix_ns=naturals,
    frame_count=st.none() | naturals,
    frame_time_s=st.none() | st.floats(0, 1e6),
    pixel_size_nm=st.none() | st.floats(0, 1e6),
    counts_per_electron=st.none() | st.floats(0, 1e6),
    audit=naturals,
)
pixels = {
    "position": naturals,
    "first_frame": naturals,
    "frames": naturals,
    "timestamp_ns": naturals,
    "dtype": dtypes,
    "codec": st.sampled_from(["planes", "bins", "blosc2"]),
    "shift": st.integers(0, 15),
    "payload": st.binary(max_size=200),
    "base": naturals,
}
pixels_of_an_audit = {"count" if name == "frames" else name: values for name, values in pixels.items()}
quantisations = st.builds(
    VarianceStabilised,
    gain=st.floats(1e-3, 1e3),
    offset=st.floats(0, 1e5),
    read_noise=st.floats(0, 1e3),
    step=st.floats(0.01, 4),
)
messages_of_the_link = st.one_of(
    st.builds(messages.Hello, streams),
    st.builds(messages.Welcome, naturals, naturals),
    st.builds(
        messages.Snapshot,
        **pixels,
        block_map=st.none() | st.binary(max_size=50),
        quantisation=st.none() | quantisations,
        noise=st.none() | st.builds(NoiseModel, st.floats(1e-3, 1e6), st.floats(0, 1e5), st.floats(0, 1e3)),
    ),
    st.builds(messages.RawFrames, **pixels),
    st.builds(messages.Audit, **pixels_of_an_audit),
    st.builds(messages.Gap, naturals, naturals, naturals, st.text(max_size=30)),
    st.builds(messages.Ack, naturals, naturals),
    st.builds(messages.End, naturals, naturals),
    st.builds(messages.Done, naturals),
    st.builds(messages.Error, st.text(max_size=10), st.text(max_size=30), st.booleans()),
)
