"""Streams, frames and snapshots of a decoder as Python objects and NumPy arrays."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from framefold_protocol.errors import FramefoldError


class ClientError(FramefoldError):
    """The decoder could not be reached, or refused; `status` is the HTTP status, 0 without an answer."""

    def __init__(self, message: str, *, status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Client:
    """One decoder. Every method raises `ClientError` when the decoder is away or refuses.

    `token` is what `framefold-decoder token` printed; a decoder that is reached through the network asks for one.
    """

    def __init__(self, address: str = "http://127.0.0.1:8571", timeout_s: float = 30.0, *, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=f"{address.rstrip('/')}/api/v1", timeout=timeout_s, headers=headers)
        self._address = address

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def streams(self) -> list[dict[str, Any]]:
        """Every stream the decoder knows, newest first."""
        streams: list[dict[str, Any]] = self._json("/streams")
        return streams

    def stream(self, stream_id: str) -> dict[str, Any]:
        """One stream: metadata, state, counts."""
        stream: dict[str, Any] = self._json(f"/streams/{stream_id}")
        return stream

    def quality(self, stream_id: str) -> list[dict[str, Any]]:
        """Every position of a stream: what it holds, its chi2 and the model that reconstructed it."""
        groups: list[dict[str, Any]] = []
        while True:
            page = self._json(f"/streams/{stream_id}/quality", start=len(groups))
            groups += page["groups"]
            if len(groups) >= page["positions"]:
                return groups

    def delete(self, stream_id: str) -> None:
        """Delete a stream for good; not while it is being sent."""
        self._ask("DELETE", f"/streams/{stream_id}")

    def models(self) -> list[dict[str, Any]]:
        """What the decoder can reconstruct with, unusable models and their problems among them."""
        models: list[dict[str, Any]] = self._json("/models")
        return models

    def frame(self, stream_id: str, frame: int) -> npt.NDArray[np.float32]:
        """One reconstructed frame, (H, W) float32 in detector counts."""
        return self._array(f"/streams/{stream_id}/frames/{frame}", format="npy")

    def frames(self, stream_id: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Frames start to stop - 1, (stop - start, H, W) float32 in detector counts."""
        return self._array(f"/streams/{stream_id}/frames", start=start, stop=stop)

    def snapshot(self, stream_id: str, index: int) -> npt.NDArray[np.unsignedinteger]:
        """One snapshot, the sums as they were sent, (H, W)."""
        return self._array(f"/streams/{stream_id}/snapshots/{index}", format="npy")

    def frame_url(self, stream_id: str, frame: int) -> str:
        """The address of a frame as a PNG, for a browser."""
        return str(self._http.build_request("GET", f"/streams/{stream_id}/frames/{frame}", params={"format": "png"}).url)

    def _json(self, path: str, **parameters: str | int) -> Any:
        return self._get(path, **parameters).json()

    def _array(self, path: str, **parameters: str | int) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = np.load(io.BytesIO(self._get(path, **parameters).content), allow_pickle=False)
        return array

    def _get(self, path: str, **parameters: str | int) -> httpx.Response:
        return self._ask("GET", path, **parameters)

    def _ask(self, method: str, path: str, **parameters: str | int) -> httpx.Response:
        try:
            response = self._http.request(method, path, params=parameters)
        except httpx.HTTPError as error:
            hint = "Is framefold-decoder running?"
            raise ClientError(f"the decoder at {self._address} does not answer: {error}", hint=hint) from error
        if response.is_error:
            raise _refusal(response)
        return response


def _refusal(response: httpx.Response) -> ClientError:
    try:
        told = response.json()["error"]
        return ClientError(told["message"], status=response.status_code, hint=told.get("hint") or "")
    except (ValueError, KeyError, TypeError):
        return ClientError(f"{response.url} answered {response.status_code}", status=response.status_code)
