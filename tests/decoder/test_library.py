from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from stream_examples import Example, make_metadata

from framefold_decoder import library as library_module
from framefold_decoder.library import Library
from framefold_decoder.store.provenance import Provenance, Quality
from framefold_decoder.verifying import verify
from framefold_protocol.errors import InputError, RemoteProtocolError, StoreError
from framefold_protocol.masks import MaskSpec, derive_masks


def test_a_stream_from_hello_to_frames(library, tmp_path):
    example = Example(make_metadata()).fold(3).gap(2).raw(1)
    stream_id = example.metadata.stream_id
    record = library.add_stream(example.metadata)
    assert (record.position, record.frames) == (0, 0)
    library.put(stream_id, example.messages[:2], 100)
    library.put(stream_id, example.messages[2:], 50)
    library.finish(stream_id, example.positions, example.frames)
    for _, position in library.catalogue.pending():
        library.put_frames(stream_id, position, example.group(position), Quality(1.0), Provenance("gap-tv"))

    assert library.catalogue.pending() == []
    record = library.catalogue.stream(stream_id)
    assert (record.state, record.decoded, record.bytes_received) == ("complete", 3, 150)
    np.testing.assert_allclose(library.store(stream_id).frames(0, 12), example.truth[:12], atol=0.5)
    assert (tmp_path / "data/catalogue.sqlite").exists()
    assert (tmp_path / "data/streams" / f"{stream_id}.zarr").is_dir()


@pytest.mark.parametrize("last_step", ["store", "catalogue"])
def test_killed_between_two_steps_it_goes_on_with_nothing_lost_or_doubled(library, tmp_path, last_step):
    """The store may be one batch ahead of the catalogue; what the catalogue does not know is sent and stored again."""
    example = Example(make_metadata()).fold(2).gap(3).fold()
    stream_id = example.metadata.stream_id
    library.add_stream(example.metadata)
    library.put(stream_id, example.messages[:1], 10)
    library.store(stream_id).put(*example.messages[1:3])
    if last_step == "catalogue":
        library.catalogue.record(stream_id, example.messages[1:3], 10)

    library.close()  # a kill lets go of the folder too
    after = Library.open(tmp_path / "data")
    record = after.add_stream(example.metadata)
    assert record.position == {"store": 1, "catalogue": 3}[last_step]
    assert after.store(stream_id).position == record.position
    after.put(stream_id, example.messages[record.position :], 10)
    after.finish(stream_id, example.positions, example.frames)
    np.testing.assert_array_equal(after.store(stream_id).snapshot(3), _sums(example, 3))
    assert [group.first_frame for group in after.store(stream_id).groups()] == [0, 4, 8, 11]
    after.close()


def _sums(example: Example, position: int) -> np.ndarray:
    return np.sum(example.codings[position].window() * example.group(position), axis=0)


def test_killed_while_a_store_was_made_it_is_made_again(library, tmp_path):
    example = Example(make_metadata()).fold()
    library.catalogue.add_stream(example.metadata)  # as far as a crash may have come
    library.add_stream(example.metadata)
    library.put(example.metadata.stream_id, example.messages, 10)
    assert library.store(example.metadata.stream_id).position == 1


def test_a_store_that_vanished_is_not_made_anew(library):
    example = Example(make_metadata()).fold()
    stream_id = example.metadata.stream_id
    library.add_stream(example.metadata)
    library.put(stream_id, example.messages, 10)
    library.path(stream_id).rename(library.folder / "elsewhere")
    library.close()
    again = Library.open(library.folder)
    again.add_stream(example.metadata)
    with pytest.raises(StoreError, match="not a framefold store"):
        again.put(stream_id, example.messages, 10)
    again.close()


def test_what_is_deleted_is_gone_and_not_taken_up_again(library, tmp_path):
    gone, kept = (Example(make_metadata()).fold(2) for _ in range(2))
    for example in (gone, kept):
        library.add_stream(example.metadata)
        library.put(example.metadata.stream_id, example.messages, 10)
    stream_id = gone.metadata.stream_id
    journal = tmp_path / "data/journal" / stream_id
    journal.mkdir(parents=True)
    (journal / "segment").touch()
    library.delete(stream_id)
    assert not library.path(stream_id).exists()
    assert not journal.exists()
    assert [record.metadata for record in library.catalogue.streams()] == [kept.metadata]
    assert {task[0] for task in library.catalogue.pending()} == {kept.metadata.stream_id}
    for ask in (library.delete, library.store):
        with pytest.raises(InputError, match="unknown"):
            ask(stream_id)
    with pytest.raises(RemoteProtocolError, match="was deleted at the decoder") as caught:
        library.add_stream(gone.metadata)
    assert caught.value.code == "deleted"
    assert not library.path(stream_id).exists()
    np.testing.assert_array_equal(library.store(kept.metadata.stream_id).snapshot(1), _sums(kept, 1))


@pytest.fixture
def stored(library):
    """A stream of two snapshots: its id, and what made it."""
    example = Example(make_metadata()).fold(2)
    library.add_stream(example.metadata)
    library.put(example.metadata.stream_id, example.messages, 10)
    return example.metadata.stream_id, example


def test_killed_while_it_deleted_the_next_start_finishes_and_verify_does_not_mind(library, stored, tmp_path):
    stream_id, _ = stored
    library.catalogue.delete(stream_id)  # and no further
    library.close()
    assert not verify(tmp_path / "data").problems
    with closing(Library.open(tmp_path / "data")):
        assert list((tmp_path / "data/streams").iterdir()) == []


def test_what_a_failing_disk_left_is_deleted_by_another_try(library, stored, tmp_path, monkeypatch):
    stream_id, _ = stored
    with monkeypatch.context() as failing:
        failing.setattr(library_module.shutil, "rmtree", lambda folder: (tmp_path / "gone").unlink())
        with pytest.raises(StoreError, match=stream_id):
            library.delete(stream_id)
    assert list((tmp_path / "data/streams").iterdir())
    assert library.delete(stream_id)
    assert list((tmp_path / "data/streams").iterdir()) == []
    with pytest.raises(InputError, match="unknown"):
        library.delete(stream_id)


def test_frames_of_a_deleted_stream_are_not_stored(library, stored):
    stream_id, example = stored
    assert library.delete(stream_id)
    with pytest.raises(InputError, match="unknown"):
        library.put_frames(stream_id, 0, example.group(0), Quality(1.0), Provenance("gap-tv"))
    assert not library.path(stream_id).exists()


def test_what_is_in_use_is_not_deleted(library, stored):
    stream_id, _ = stored
    assert not library.delete(stream_id, in_use=lambda name: name == stream_id)
    assert library.catalogue.stream(stream_id).position == 2


def test_a_folder_in_use_is_not_opened_again(library):
    with pytest.raises(StoreError, match=f"{library.folder} is in use by another process"):
        Library.open(library.folder)
    library.close()
    Library.open(library.folder).close()


def test_a_stream_id_is_no_path(library):
    with pytest.raises(RemoteProtocolError, match="32 lower-case hex digits"):
        library.add_stream(make_metadata(stream_id="../outside"))
    with pytest.raises(InputError, match="unknown"):
        library.store("../outside")


def test_masks_of_a_file_are_found_in_the_mask_folder(tmp_path):
    spec = MaskSpec(ratio=4, period=8)
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks/mine.npy", derive_masks(spec, (37, 70)).window())
    metadata = replace(make_metadata(), families=(MaskSpec("file", ratio=4, file="mine.npy"),))
    library = Library.open(tmp_path / "data", mask_folder=tmp_path / "masks")
    library.add_stream(metadata)
    library.put(metadata.stream_id, Example(make_metadata()).fold().messages, 10)
    expected = derive_masks(spec, (37, 70)).window()
    np.testing.assert_array_equal(library.store(metadata.stream_id).coding(0).window(), expected)
    library.close()


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/data failed") as caught:
        Library.open(tmp_path / "file/data")
    assert "choose another folder" in caught.value.hint


def test_one_store_for_all_threads(library):
    metadata = make_metadata()
    library.add_stream(metadata)
    stores = []
    threads = [threading.Thread(target=lambda: stores.append(library.store(metadata.stream_id))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 4
    assert len({id(store) for store in stores}) == 1


def test_stores_that_nobody_asks_for_are_let_go_of_but_never_opened_twice(library, monkeypatch):
    monkeypatch.setattr(library_module, "_KEPT_OPEN", 2)
    ids = [f"{number:032x}" for number in range(5)]
    for stream_id in ids:
        library.add_stream(make_metadata(stream_id=stream_id))
    held = library.store(ids[0])
    let_go = weakref.ref(library.store(ids[1]))
    for stream_id in ids[2:]:
        library.store(stream_id)
    gc.collect()
    assert let_go() is None
    assert library.store(ids[0]) is held


def test_what_a_writer_and_a_crash_leave_of_a_deleted_stream_is_swept(library, stored, tmp_path):
    stream_id, _ = stored
    streams = tmp_path / "data/streams"
    (streams / f"{stream_id}.zarr.0123.partial").touch()
    assert library.delete(stream_id)
    (streams / f"{stream_id}.zarr" / "frames").mkdir(parents=True)  # by one who was just writing
    library.sweep(stream_id)
    assert list(streams.iterdir()) == []


def test_who_sweeps_does_not_disturb_who_deletes(library, stored):
    stream_id, _ = stored
    for number in range(2000):
        (library.path(stream_id) / f"{number}").touch()
    with ThreadPoolExecutor(2) as pool:
        deleting = pool.submit(library.delete, stream_id)
        while not deleting.done():
            if library.catalogue.stream(stream_id) is None:
                library.sweep(stream_id)
    assert deleting.result()
