"""Two passes over captures: what is in them, then what natfix makes of it and what is wrong.

    pass 1  reads the inputs once: SIP goes to a spool on disk, media into the table of streams, and
            whatever says where the NAT is to natfix.replay.network
    pass 2  reads the spool in the order of time: sightings become passages, the engine is driven with
            them, conversations are collected, judged, and their rows spooled for the outputs
"""

from __future__ import annotations

from natfix.replay.result import Result

__all__ = ["Result"]
