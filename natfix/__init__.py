"""natfix: a transparent, packet-level NAT fixer for SIP on Linux gateways.

The map of the package, from the bottom up; imports go downward only (``tests/test_layers.py``):

1. words: :mod:`~natfix.address`, :mod:`~natfix.errors`.
2. wire and data: :mod:`~natfix.packet` (IPv4/UDP), :mod:`~natfix.sip` (messages as spans),
   :mod:`~natfix.sdp`, :mod:`~natfix.edits` (collected, applied once), :mod:`~natfix.commands` (what the
   kernel is asked, and the notes that say why), :mod:`~natfix.reports`, :mod:`~natfix.config`,
   :mod:`~natfix.quirks`, :mod:`~natfix.kernel.base`.
3. state: :mod:`~natfix.mappings` (inside endpoint <-> outside endpoint), :mod:`~natfix.ports`,
   :mod:`~natfix.dialogs` (calls), :mod:`~natfix.registrations`, :mod:`~natfix.spelling`,
   :mod:`~natfix.repeats`, :mod:`~natfix.deadlines`.
4. decision: :mod:`~natfix.engine` gives each message its :mod:`~natfix.turn`:
   :mod:`~natfix.signalling` (its mapping), :mod:`~natfix.callflow` (its call), :mod:`~natfix.media` (its
   SDP), :mod:`~natfix.rewrite` (its headers), :mod:`~natfix.registering`; :mod:`~natfix.memory` survives a
   restart, :mod:`~natfix.listing` answers questions.
5. kernel: :mod:`~natfix.kernel.netfilter` for real, :mod:`~natfix.kernel.fake` for tests and replay.
6. shells: :mod:`~natfix.cli` and what its commands run.
"""

__version__ = "0.1.0"
