"""Recognises files and folders of operating systems, storage devices and tools, which are never part of the data."""

from __future__ import annotations

_NAMES = frozenset(
    (
        # Windows, macOS, Linux
        "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "recycler",
        "system volume information", "found.000", "__macosx", "icon\r", "lost+found",
        "network trash folder", "temporary items", "thevolumesettingsfolder", "lost.dir", "picasa.ini", "zbthumbnail.info",
        # network storage: Synology, QNAP, and others
        "@eadir", "@tmp", "@recycle", "#recycle", "#snapshot", "@recently-snapshot", "~snapshot", "__pycache__",
    )
)  # fmt: skip
# An editor's copy of the file before, downloads that are not complete, and a camera's thumbnails.
_ENDS = ("~", ".part", ".crdownload", ".thm")
_RECORDS = (
    ".artifacts", ".safetensors", ".partial", ".db", ".sqlite", ".sqlite3", "-wal", "-shm", "-journal", ".lock", ".html",
)  # fmt: skip


def is_system_file(name: str) -> bool:
    """Whether a file or folder with this name is hidden, belongs to a system or device, or is an unfinished copy.

    Names that begin with a dot are hidden: `.git`, `.DS_Store`, `.thumbnails`, `._photo.jpg`.
    """
    return name.startswith((".", "~$")) or name.casefold() in _NAMES or name.casefold().endswith(_ENDS)


def is_export(names: frozenset[str]) -> bool:
    """Whether a folder with these files is a model that `archsmith export` wrote."""
    return "model.json" in names and bool(names & {"model.safetensors", "model.onnx", "model.py"})


def is_record(name: str) -> bool:
    """Whether a file or folder with this name is a store, weights or a page of archsmith."""
    return name.casefold().endswith(_RECORDS)
