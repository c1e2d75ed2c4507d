"""Data sets by name and path: what is accepted, what is refused and how clearly, and how they are split."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.core.errors import DataError, UnknownName
from archsmith.data import download, image_files
from archsmith.data import images as data
from archsmith.training import ImageClassification


def pictures(count=60, side=6, channels=1, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8), np.arange(count) % classes


# --- splits ---


def test_digits_are_all_there_and_split_as_said():
    splits = ImageClassification("digits").splits()
    assert splits.data.images.shape[1:] == (8, 8, 1)
    assert len(splits.test_labels) == round(0.2 * 1797)
    assert len(splits.train) + len(splits.validation) + len(splits.test_labels) == 1797
    assert len(splits.validation) == round(0.1 * (1797 - 359))
    assert len(np.unique(splits.data.images)) == 17  # the 17 grey levels are kept apart
    assert splits.data.images.max() == 255


def test_no_image_is_in_two_splits():
    images, labels = pictures(200)
    images[:, 0, 0, 0] = np.arange(200)
    splits = data.split(image_files.checked("x", images, labels, None, None, None), 0.1, 0)
    seen = [splits.data.images[splits.train], splits.data.images[splits.validation], splits.test_images]
    numbers = np.concatenate([s[:, 0, 0, 0] for s in seen])
    assert sorted(numbers) == list(range(200))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=2, max_size=8), st.floats(0.05, 0.5), st.integers(0, 2**40))
def test_a_stratified_part_has_every_class_in_proportion(sizes, fraction, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rest, part = data.stratified(labels, fraction, seed)
    assert sorted([*rest, *part]) == list(range(len(labels)))
    counts = np.bincount(labels[part], minlength=len(sizes))
    for size, count in zip(sizes, counts, strict=True):
        assert 1 <= count < size
        assert abs(count - size * fraction) <= 1
    again, _ = data.stratified(labels, fraction, seed)
    assert np.array_equal(again, rest)


def test_cifar_sized_data_give_45000_and_5000():
    rest, part = data.stratified(np.arange(50_000) % 10, 0.1, 0)
    assert (len(rest), len(part)) == (45_000, 5_000)
    assert set(np.bincount(np.arange(50_000)[part] % 10)) == {500}


def test_splits_are_the_same_in_every_process_and_version():
    # A constant, so that a change of numpy or of ours that moved the splits would be seen.
    _, part = data.stratified(np.arange(40) % 4, 0.1, 7)
    assert part.tolist() == [6, 23, 32, 37]


def test_the_split_seed_moves_validation_and_not_the_test_images():
    a, b = (ImageClassification("digits", split_seed=seed).splits() for seed in (0, 1))
    assert not np.array_equal(a.validation, b.validation)
    assert np.array_equal(a.test_images, b.test_images)
    assert a.fingerprint != b.fingerprint
    assert a.data is b.data  # read once


def test_fewer_images_are_a_stratified_subset_that_is_still_split():
    splits = ImageClassification("digits", max_train=300).splits()
    assert len(splits.train) == 270
    assert len(splits.validation) == 30
    assert np.bincount(splits.data.labels[splits.train]).min() >= 25
    assert len(splits.test_labels) == 359
    assert ImageClassification("digits", max_train=300).fingerprint() != ImageClassification("digits").fingerprint()


def test_the_fingerprint_is_of_the_content_wherever_it_lies(tmp_path):
    images, labels = pictures()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / f"{name}.npz", x_train=images, y_train=labels)
    first, second = (ImageClassification(str(tmp_path / n / f"{n}.npz")).fingerprint() for n in "ab")
    assert first == second
    images[0, 0, 0, 0] ^= 1
    np.savez(tmp_path / "b" / "b.npz", x_train=images, y_train=labels)
    assert ImageClassification(str(tmp_path / "b" / "b.npz")).fingerprint() != first  # and replaced files are seen


def test_what_the_data_are_is_plain_json(tmp_path):
    import json

    images, labels = pictures()
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images[:9], y_test=labels[:9])
    told = ImageClassification(str(tmp_path / "a.npz")).describe_data()
    assert json.loads(json.dumps(told)) == told
    assert (told["train"], told["validation"], told["test"], told["test_split"]) == (54, 6, 9, "official")
    assert len(told["sha256"]) == len(told["split_sha256"]) == 64


def test_images_are_resized_and_converted_as_asked(tmp_path):
    images, labels = pictures(channels=3)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels)
    task = ImageClassification(str(tmp_path / "a.npz"), size=8, channels=1).task()
    assert task.input_shape == (1, 8, 8)
    assert ImageClassification("digits", size=28, channels=3).task().input_shape == (3, 28, 28)


def test_listing_needs_no_torch():
    code = "import sys; from archsmith.training import ImageClassification as I; I().task(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- names and paths that lead nowhere ---


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("digit", UnknownName, "digits"),
        ("cifar-10", UnknownName, "cifar10"),
        ("FASHION_MNIS", UnknownName, "fashion-mnist"),
        ("/no/such/folder", DataError, "no file or folder"),
        ("missing.npz", DataError, "no file or folder"),
        ("~no-such-user/pictures", DataError, "no file or folder"),
        (__file__, DataError, "in no format that is known"),
    ],
)
def test_what_is_not_there_is_named(name, error, words):
    with pytest.raises(error, match=words):
        ImageClassification(name).task()


# --- npz ---

X, Y = pictures()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_train": X}, "no array 'y_train'"),
        ({"pixels": X, "answers": Y}, "no array 'x_train'"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "only one of x_test and y_test"),
        ({"x_train": X.astype(np.float32), "y_train": Y}, "must be uint8.*got float32"),
        ({"x_train": np.full(X.shape, np.nan), "y_train": Y}, "NaN"),
        ({"x_train": X, "y_train": Y + 0.5}, "must be whole numbers.*float64"),
        ({"x_train": X, "y_train": np.where(Y, Y, np.nan)}, "NaN"),
        ({"x_train": X, "y_train": Y - 1}, "got -1 to 1"),
        ({"x_train": X, "y_train": Y * 2}, "labels 0 to 2.*none that is 1"),
        ({"x_train": X, "y_train": Y[:-1]}, "59 labels for 60 images"),
        ({"x_train": X, "y_train": np.eye(3, dtype=int)[Y]}, "one label for each image"),
        ({"x_train": X, "y_train": Y.astype(object)}, "pickle"),
        ({"x_train": X.reshape(60, -1), "y_train": Y}, "must be .count, height, width"),
        ({"x_train": X[:0], "y_train": Y[:0]}, "must be .count, height, width"),
        ({"x_train": np.zeros((60, 3, 9, 9), np.uint8), "y_train": Y}, "transpose"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :5], "y_test": Y}, "must agree"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, "y_test has the label 3"),
        ({"x_train": X, "y_train": Y * 0}, "one class"),
        ({"x_train": X[:2], "y_train": Y[:2]}, "too small"),
        ({"x_train": X[:9], "y_train": np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])}, "'2' has 1"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=words):
        ImageClassification(str(tmp_path / "bad.npz")).task()


def test_grey_arrays_may_have_no_channels_and_labels_a_column(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x_train=X[..., 0], y_train=Y[:, None].astype(np.uint8))
    task = ImageClassification(str(tmp_path / "a.npz")).task()
    assert (task.input_shape, task.num_classes) == ((1, 6, 6), 3)


def test_any_damaged_npz_is_a_clear_error(tmp_path):
    np.savez_compressed(tmp_path / "good.npz", x_train=X, y_train=Y)
    good = (tmp_path / "good.npz").read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for k in range(60):
        bad = bytearray(good)
        if k % 2:
            bad = bad[: int(rng.integers(len(bad)))]
        else:
            for at in rng.integers(0, len(bad), 5):
                bad[at] = int(rng.integers(256))
        (tmp_path / f"{k}.npz").write_bytes(bad)
        try:
            ImageClassification(str(tmp_path / f"{k}.npz")).task()
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert all(".npz" in message for message in messages)


# --- IDX ---


def idx(array, magic=None):
    head = magic or bytes([0, 0, 8, array.ndim])
    return head + b"".join(int(n).to_bytes(4, "big") for n in array.shape) + array.tobytes()


def idx_folder(folder, dot="-", pack=gzip.compress, suffix=".gz"):
    folder.mkdir()
    for part, (x, y) in {"train": pictures(60), "t10k": pictures(20, seed=1)}.items():
        (folder / f"{part}-images{dot}idx3-ubyte{suffix}").write_bytes(pack(idx(x[..., 0])))
        (folder / f"{part}-labels{dot}idx1-ubyte{suffix}").write_bytes(pack(idx(y.astype(np.uint8))))
    return folder


def test_idx_files_are_read_packed_or_not(tmp_path):
    a = ImageClassification(str(idx_folder(tmp_path / "a"))).splits()
    b = ImageClassification(str(idx_folder(tmp_path / "b", ".", bytes, ""))).splits()
    assert a.fingerprint == b.fingerprint
    assert a.official_test
    assert np.array_equal(a.test_images, pictures(20, seed=1)[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b[:-30], "damaged"),
        (lambda b: b"no gzip", "damaged"),
        (lambda b: gzip.compress(gzip.decompress(b)[:-5]), "should hold"),
        (lambda b: gzip.compress(gzip.decompress(b) + b"!"), "holds more"),
        (lambda b: gzip.compress(b"\0\0\x0d\3" + gzip.decompress(b)[4:]), "no IDX file"),
        (lambda b: gzip.compress(b""), "no IDX file"),
        (lambda b: gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12), "should hold"),  # claims 79 billion billion
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, change, words):
    file = idx_folder(tmp_path / "a") / "train-images-idx3-ubyte.gz"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DataError, match=words):
        ImageClassification(str(tmp_path / "a")).task()


def test_a_missing_idx_file_is_named(tmp_path):
    (idx_folder(tmp_path / "a") / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte"):
        ImageClassification(str(tmp_path / "a")).task()


# --- CIFAR ---


def cifar10(folder, count=20):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        records = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(count) % 10
        (folder / name).write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(f"class{k}" for k in range(10)) + "\n\n")
    return folder


def tar(folder, target, names=None):
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, "cifar-10-batches-bin")
    return target


def test_cifar10_is_read_from_the_folder_and_from_the_archive(tmp_path):
    folder = cifar10(tmp_path / "bin")
    a = ImageClassification(str(folder)).splits()
    b = ImageClassification(str(tar(folder, tmp_path / "cifar-10-binary.tar.gz"))).splits()
    assert a.fingerprint == b.fingerprint
    assert (len(a.train), len(a.validation), len(a.test_labels)) == (90, 10, 20)
    assert a.data.class_names[3] == "class3"
    record = np.frombuffer((folder / "data_batch_1.bin").read_bytes(), np.uint8)[:3073]
    assert np.array_equal(a.data.images[0, 2, 5], record[1:].reshape(3, 32, 32)[:, 2, 5])  # red, green, blue planes


def test_cifar100_has_the_fine_labels(tmp_path):
    (tmp_path / "c").mkdir()
    for name, count in (("train.bin", 500), ("test.bin", 100)):
        records = np.zeros((count, 3074), np.uint8)
        records[:, 0], records[:, 1] = 99, np.arange(count) % 100
        (tmp_path / "c" / name).write_bytes(records.tobytes())
    splits = ImageClassification(str(tmp_path / "c")).splits()
    assert len(splits.data.class_names) == 100
    assert np.array_equal(splits.data.labels, np.arange(500) % 100)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("data_batch_2.bin", b"x" * 4000, "3073-byte records"),
        ("data_batch_3.bin", b"", "3073-byte records"),
        ("data_batch_4.bin", bytes([10]) + bytes(3072), "label 10"),
    ],
)
def test_damaged_cifar_files_are_named(tmp_path, name, content, words):
    folder = cifar10(tmp_path / "bin")
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.*{words}"):
        ImageClassification(str(folder)).task()


def test_a_missing_cifar_batch_is_named(tmp_path):
    (cifar10(tmp_path / "bin") / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"not data_batch_3\.bin"):
        ImageClassification(str(tmp_path / "bin")).task()


def test_pickles_are_refused_and_the_binary_archive_named(tmp_path):
    (tmp_path / "py").mkdir()
    (tmp_path / "py" / "data_batch_1").write_bytes(b"\x80\x04N.")
    (tmp_path / "data.pkl").write_bytes(b"\x80\x04N.")
    with tarfile.open(tmp_path / "innocent.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "py", "cifar-10-batches-py")
    for path in ("py", "data.pkl", "innocent.tar.gz"):
        with pytest.raises(DataError, match=r"pickles.*cifar-10-binary\.tar\.gz"):
            ImageClassification(str(tmp_path / path)).task()


# --- downloads, from a server on this machine ---


@pytest.fixture
def server(tmp_path):
    """A server with a little MNIST. `routes` maps a path to (status, headers, body)."""
    folder = idx_folder(tmp_path / "served")
    routes = {f"/{f.name}": (200, {}, f.read_bytes()) for f in folder.iterdir()}
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, headers, body = routes.get(self.path, (404, {}, b""))
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    httpd.routes, httpd.asked, httpd.home = routes, asked, f"http://127.0.0.1:{httpd.server_port}/"
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def little_mnist(server, monkeypatch, tmp_path):
    sums = {path[1:]: hashlib.sha256(body).hexdigest() for path, (_, _, body) in server.routes.items()}
    monkeypatch.setitem(download.SOURCES, "mnist", download.Source(server.home, sums))
    monkeypatch.setenv("ARCHSMITH_CACHE", str(tmp_path / "cache"))
    return server


def files_in(folder: Path):
    return sorted(p.name for p in folder.rglob("*") if p.is_file()) if folder.exists() else []


def test_a_named_data_set_is_downloaded_once(little_mnist, tmp_path):
    splits = ImageClassification("MNIST").splits()
    assert (len(splits.train), len(splits.validation), len(splits.test_labels)) == (54, 6, 20)
    assert splits.data.name == "mnist"
    assert len(little_mnist.asked) == 4

    ImageClassification("mnist").task()
    assert len(little_mnist.asked) == 4
    assert files_in(tmp_path / "cache") == files_in(tmp_path / "served")


def test_a_named_data_set_is_found_in_the_folder_of_data(little_mnist, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "served").rename(tmp_path / "own" / "mnist")
    monkeypatch.setenv("ARCHSMITH_DATA", str(tmp_path / "own"))
    splits = ImageClassification("mnist").splits()
    assert (len(splits.train), splits.data.name, little_mnist.asked) == (54, "mnist", [])
    (tmp_path / "own" / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()  # then all are downloaded

    ImageClassification("mnist").task()
    assert len(little_mnist.asked) == 4


def test_a_file_with_another_checksum_is_not_kept(little_mnist, tmp_path):
    name = "/train-images-idx3-ubyte.gz"
    status, headers, body = little_mnist.routes[name]
    little_mnist.routes[name] = (status, headers, body[:-1] + b"?")
    with pytest.raises(DataError, match="SHA-256"):
        ImageClassification("mnist").task()
    assert name[1:] not in files_in(tmp_path / "cache")
    assert not [f for f in files_in(tmp_path / "cache") if f.startswith(".")]
    little_mnist.routes[name] = (status, headers, body)
    ImageClassification("mnist").task()


@pytest.mark.parametrize(
    "reply",
    [
        (404, {}, b"gone"),
        (500, {}, b""),
        (200, {"Content-Length": "999999"}, b"short"),
        (302, {"Location": "http://example.invalid/mnist"}, b""),
        (302, {"Location": "file:///etc/hostname"}, b""),
    ],
)
def test_a_broken_download_leaves_nothing_and_says_what_to_do(little_mnist, tmp_path, reply):
    for name in little_mnist.routes:
        little_mnist.routes[name] = reply
    with pytest.raises(DataError, match=r"could not be downloaded.*Without a network.*give their path"):
        ImageClassification("mnist").task()
    assert files_in(tmp_path / "cache") == []


def test_without_a_network_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("ARCHSMITH_CACHE", str(tmp_path))
    source = download.SOURCES["cifar10"]
    monkeypatch.setitem(download.SOURCES, "cifar10", download.Source("https://127.0.0.1:9/", source.files))
    with pytest.raises(DataError, match=r"'cifar10'.*refused.*cifar-10-binary\.tar\.gz.*put them into"):
        ImageClassification("cifar10").task()


def test_a_cache_that_cannot_be_written_is_a_clear_error(little_mnist, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ARCHSMITH_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="could not be downloaded"):
        ImageClassification("mnist").task()


def test_only_https_is_spoken_outside_this_machine(tmp_path):
    for url in ("http://example.invalid/x", "ftp://example.invalid/x", "file:///etc/hostname"):
        with pytest.raises(DataError, match="https only"):
            download.download(url, tmp_path / "x", "0" * 64)


def test_the_public_homes_are_https_with_sha256():
    assert set(download.SOURCES) == (set(data.NAMES) - {"digits"}) | {"ptb"}
    for source in download.SOURCES.values():
        assert source.home.startswith("https://")
        assert source.home.endswith("/")
        assert all(len(bytes.fromhex(checksum)) == 32 for checksum in source.files.values())


# --- the real thing ---


@pytest.mark.data
def test_fashion_mnist_as_it_is():
    evaluator = ImageClassification(str(Path(os.environ["ARCHSMITH_DATA"], "fashion-mnist")))
    splits = evaluator.splits()
    assert (len(splits.train), len(splits.validation), len(splits.test_labels)) == (54_000, 6_000, 10_000)
    assert splits.data.class_names[9] == "ankle boot"
    assert splits.data.mirrored_is_same
    assert set(np.bincount(splits.data.labels[splits.validation])) == {600}


@pytest.mark.data
def test_real_cifar10_pictures_in_the_binary_format(tmp_path):
    from PIL import Image

    source = np.load(Path(os.environ["ARCHSMITH_DATA"], "cifar10_jpeg.npz"))
    offsets, labels, content = source["offsets"], source["labels"], source["jpeg"].tobytes()
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    train, test = rng.permutation(50_000)[:2_500], 50_000 + rng.permutation(10_000)[:500]
    decoded = {}
    parts = {f"data_batch_{i + 1}.bin": train[i::5] for i in range(5)} | {"test_batch.bin": test}
    for name, numbers in parts.items():
        with (folder / name).open("wb") as file:
            for n in numbers:
                picture = np.asarray(Image.open(io.BytesIO(content[offsets[n] : offsets[n + 1]])).convert("RGB"))
                decoded.setdefault(name, (picture, labels[n]))
                file.write(bytes([labels[n]]) + picture.transpose(2, 0, 1).tobytes())
    splits = ImageClassification(str(tar(folder, tmp_path / "cifar-10-binary.tar.gz"))).splits()
    assert (len(splits.train), len(splits.validation), len(splits.test_labels)) == (2_250, 250, 500)
    picture, label = decoded["data_batch_1.bin"]
    assert np.array_equal(splits.data.images[0], picture)
    assert splits.data.labels[0] == label
    assert np.array_equal(splits.test_images[0], decoded["test_batch.bin"][0])


def test_test_images_that_are_learned_from_as_well_are_counted_and_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "leak.npz", x_train=x, y_train=y, x_test=np.concatenate([x[:3], 255 - x[:5]]), y_test=y[:8])
    with pytest.warns(UserWarning, match="3 of the 8 test images of .* are also among those learned from"):
        described = ImageClassification(str(tmp_path / "leak.npz")).describe_data()
    assert len(described["remarks"]) == 1
    np.savez(tmp_path / "clean.npz", x_train=x, y_train=y, x_test=255 - x[:5], y_test=y[:5])
    assert ImageClassification(str(tmp_path / "clean.npz")).describe_data()["remarks"] == []
