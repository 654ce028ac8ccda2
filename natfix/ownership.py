"""Files that root makes in the service's folders are the service's, which could not open them otherwise."""

from __future__ import annotations

import os


def hand_over(path: str) -> None:
    """Give the file at *path* to the owner of its folder, where root has made it in somebody else's.

    `natfix up` and a `natfix run` by hand are root's, the unit's natfix is not, and all use the same files.
    Raises OSError.
    """
    if os.geteuid():
        return
    folder = os.stat(os.path.dirname(path) or ".")
    if folder.st_uid:
        os.chown(path, folder.st_uid, folder.st_gid, follow_symlinks=False)
