"""libnftables in this process, for what is done seldom: loading the static table, listing rules of others."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from natfix.errors import KernelRefused

LIBRARY = "libnftables.so.1"
JSON, TERSE = 1 << 4, 1 << 11       # NFT_CTX_OUTPUT_*


def run(commands: str, flags: int = 0) -> str:
    """Carry out nft *commands* as one transaction in this thread's network namespace; return the output.

    Raises KernelRefused with nft's own first line of complaint.
    """
    with _context(flags) as (library, context):
        failed = library.nft_run_cmd_from_buffer(context, commands.encode())
        output: bytes = library.nft_ctx_get_output_buffer(context) or b""
        complaint: bytes = library.nft_ctx_get_error_buffer(context) or b""
    if failed:
        lines = complaint.decode(errors="replace").splitlines() or ["no reason given"]
        raise KernelRefused(f"nftables refuses: {lines[0].removeprefix('/dev/stdin:')}")
    return output.decode(errors="replace")


@contextmanager
def _context(flags: int) -> Iterator[tuple[Any, int]]:
    library = load()
    context = library.nft_ctx_new(0)
    if not context:
        raise KernelRefused("libnftables cannot be started")
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_output_set_flags(context, flags)
        yield library, context
    finally:
        library.nft_ctx_free(context)


@cache
def load() -> Any:
    """Return the library; raises KernelRefused where it is not installed."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        raise KernelRefused(f"{LIBRARY} is not installed: apt install libnftables1") from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    return library
