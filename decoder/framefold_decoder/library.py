"""The library: a data folder, its catalogue and its streams' stores, always written in the right order.

    library = Library.open(Path("data"))              # DATA/catalogue.sqlite, DATA/streams/<stream_id>.zarr
    record = library.add_stream(hello.stream)         # new or known; welcome from record.position, record.frames
    library.put(stream_id, [data, ...], wire_bytes)   # on the disk and in the catalogue when it returns: acknowledge
    library.finish(stream_id, end.position, end.frames)
    library.delete(stream_id)                         # for good

    for stream_id, position in library.catalogue.pending():           # any decode thread
        store = library.store(stream_id)
        Y, coding = store.snapshot(position), store.coding(position)
        library.put_frames(stream_id, position, frames, quality, provenance)  # stored, and no longer pending

One process at a time may open a library; readers of the Zarr folders need no leave.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO
from weakref import WeakValueDictionary

from framefold_decoder.catalogue import Catalogue, StreamRecord
from framefold_decoder.store import StreamStore
from framefold_decoder.store.metadata import check_metadata
from framefold_decoder.store.provenance import Provenance, Quality
from framefold_decoder.store.rounding import Frames
from framefold_protocol.durable import disk_errors, lock_folder, unfinished
from framefold_protocol.errors import InputError, RemoteProtocolError, StoreError
from framefold_protocol.messages import Data, StreamMetadata

_log = logging.getLogger(__name__)
_KEPT_OPEN = 64
"""Stores, the last ones asked for: each holds its masks and its table in memory."""


class Library:
    """A data folder in use. Methods may be called from any thread, `put` and `finish` of one stream from one at a time."""

    def __init__(self, folder: Path, catalogue: Catalogue, mask_folder: Path | None, lock: TextIO) -> None:
        self.folder = folder
        self._folder_lock = lock
        self.catalogue = catalogue
        self._mask_folder = mask_folder
        self._stores: WeakValueDictionary[str, StreamStore] = WeakValueDictionary()  # one for all, while anybody has it
        self._recent: OrderedDict[str, StreamStore] = OrderedDict()
        self._lock = threading.Lock()
        self.taking_up = threading.Lock()
        """Held from a stream's hello until it is known to be in use: nobody may delete it meanwhile."""
        self._deleting = threading.Lock()
        """One at a time: who deletes a stream, and who sweeps up after it."""

    @classmethod
    def open(cls, folder: Path, *, database_url: str | None = None, mask_folder: Path | None = None) -> Library:
        """Open a data folder, or make it. `database_url`: another catalogue than `catalogue.sqlite` in the folder.

        `mask_folder` is where masks of kind `file` lie. Raises `StoreError`, also when another process has the folder open.
        """
        with disk_errors(f"opening data folder {folder}"):
            (folder / "streams").mkdir(parents=True, exist_ok=True)
            lock = lock_folder(folder)
        if lock is None:
            hint = "Stop the other framefold-decoder, or choose another data folder with --data"
            raise StoreError(f"data folder {folder} is in use by another process", hint=hint)
        try:
            catalogue = Catalogue(database_url or f"sqlite:///{folder / 'catalogue.sqlite'}")
        except BaseException:
            lock.close()
            raise
        library = cls(folder, catalogue, mask_folder, lock)
        try:
            library._finish_deleting()
        except BaseException:
            library.close()
            raise
        return library

    def close(self) -> None:
        """Close the catalogue and let go of the folder. Stores need no closing."""
        self.catalogue.close()
        self._folder_lock.close()

    def problems(self) -> list[str]:
        """What keeps the library from being written and read; empty when all is well."""
        found = [] if os.access(self.folder / "streams", os.W_OK) else [f"data folder {self.folder} cannot be written"]
        try:
            self.catalogue.check()
        except StoreError as error:
            found.append(str(error))
        return found

    def path(self, stream_id: str) -> Path:
        """Where a stream's store is."""
        return self.folder / "streams" / f"{stream_id}.zarr"

    def check_owner(self, stream_id: str, key_name: str) -> None:
        """Raise `RemoteProtocolError` (code `other-key`) when a known stream was opened with another key than this one."""
        owner = self.catalogue.owner(stream_id)
        if owner and owner != key_name:
            message = f"stream {stream_id} was opened with key {owner!r}, and this is {key_name!r}"
            hint = "A stream goes on with the key that opened it; start this encoder as a new stream"
            raise RemoteProtocolError(message, code="other-key", hint=hint)

    def add_stream(self, metadata: StreamMetadata, key_name: str = "") -> StreamRecord:
        """Take up a stream, or find it; it belongs to the key it first comes with.

        Raises `StoreError`, or `RemoteProtocolError` when its metadata cannot be its own, its key is another, or it is deleted.
        """
        check_metadata(metadata)
        self.check_owner(metadata.stream_id, key_name)
        path = self.path(metadata.stream_id)
        with self._lock:
            self.catalogue.check_not_deleted(metadata.stream_id)
            known = self.catalogue.stream(metadata.stream_id)
            if not path.exists() and (known is None or known.position == 0):
                StreamStore.create(path, metadata)  # before the catalogue has it: no stream without a store
            return self.catalogue.add_stream(metadata, key_name)

    def store(self, stream_id: str) -> StreamStore:
        """A known stream's store, the same for all. Raises `StoreError`, or `InputError` when the stream is unknown."""
        with self._lock:
            store = self._stores.get(stream_id)
            if store is None:
                record = self.catalogue.stream(stream_id)
                if record is None:
                    raise InputError(f"stream {stream_id!r} is unknown", hint="List the streams there are")
                store = StreamStore(self.path(stream_id), position=record.position, mask_folder=self._mask_folder)
                self._stores[stream_id] = store
            self._recent[stream_id] = store
            self._recent.move_to_end(stream_id)
            while len(self._recent) > _KEPT_OPEN:
                self._recent.popitem(last=False)
            return store

    def put(self, stream_id: str, batch: Sequence[Data], wire_bytes: int) -> None:
        """Store the stream's next positions: pixels first, catalogue after. A batch shares its disk waits."""
        self.store(stream_id).put(*batch)
        self.catalogue.record(stream_id, batch, wire_bytes)

    def finish(self, stream_id: str, position: int, frames: int) -> None:
        """Close a stream of this many positions and frames. Twice is a no-op."""
        self.store(stream_id).finish(position, frames)
        self.catalogue.finish(stream_id, position)

    def put_frames(self, stream_id: str, position: int, frames: Frames, quality: Quality, provenance: Provenance) -> None:
        """Store a snapshot's reconstruction, (B, H, W) float32 counts: pixels first, catalogue after."""
        self.store(stream_id).put_frames(position, frames, quality, provenance)
        self.catalogue.mark_decoded(stream_id, position, provenance.model, quality.chi2, quality.psnr)

    def delete(self, stream_id: str, in_use: Callable[[str], bool] = lambda stream_id: False) -> bool:
        """Delete a stream for good, its pixels and what waits for the store in its journal; False while it is `in_use`.

        It is out of the catalogue before its files are: what a crash or a failing disk leaves of them is deleted by another
        call, or by the next `open`. Raises `InputError` when there is nothing of the stream, and `StoreError`.
        """
        with self.taking_up, self._lock:
            if in_use(stream_id):
                return False
            if not self.catalogue.delete(stream_id) and not (stream_id in self.catalogue.deleted() and self._files(stream_id)):
                raise InputError(f"stream {stream_id!r} is unknown", hint="List the streams there are")
            self._stores.pop(stream_id, None)
            self._recent.pop(stream_id, None)
        self._delete_files(stream_id)
        _log.info("stream %s is deleted", stream_id)
        return True

    def sweep(self, stream_id: str) -> None:
        """Delete what somebody who was writing frames has put where a deleted stream was."""
        try:
            self._delete_files(stream_id)
        except StoreError as error:  # the next `open` tries again
            _log.warning("%s", error)

    def _finish_deleting(self) -> None:
        for stream_id in self.catalogue.deleted():
            self.sweep(stream_id)

    def _files(self, stream_id: str) -> list[Path]:
        """The folders there are of a stream."""
        path = self.path(stream_id)
        return [one for one in (path, path.with_suffix(".deleted"), self.folder / "journal" / stream_id) if one.exists()]

    def _delete_files(self, stream_id: str) -> None:
        """Out of the way first, so that who is just writing frames puts none into what is being deleted."""
        path = self.path(stream_id)
        with self._deleting, disk_errors(f"deleting stream {stream_id}"), ExitStack() as all_of_them:
            if path.exists() and not path.with_suffix(".deleted").exists():
                path.rename(path.with_suffix(".deleted"))
            for partial in unfinished(path):
                all_of_them.callback(partial.unlink, missing_ok=True)
            for folder in self._files(stream_id):
                all_of_them.callback(shutil.rmtree, folder)
