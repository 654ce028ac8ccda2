"""natfix: a transparent, packet-level NAT fixer for SIP on Linux gateways.

The map of the package, from the bottom up; imports go downward only (``tests/test_layers.py``):

1. words: :mod:`~natfix.address`, :mod:`~natfix.errors`, :mod:`~natfix.message_ids` (the kinds of log lines).
2. wire and data: :mod:`~natfix.packet` (IPv4/UDP), :mod:`~natfix.segment` (IPv4/TCP), :mod:`~natfix.sip`
   (messages as spans, their :mod:`~natfix.sip.fields`), :mod:`~natfix.sdp`, :mod:`~natfix.edits`
   (collected, applied once),
   :mod:`~natfix.commands` (what the kernel is asked, and the notes that say why), :mod:`~natfix.reports`,
   :mod:`~natfix.kernel.base` (what every kernel back end can do); :mod:`~natfix.config` and
   :mod:`~natfix.quirks`, both read by :mod:`~natfix.document` (TOML with line numbers) as
   :mod:`~natfix.expect` says, as are :mod:`~natfix.catalogue` (what each code means) and
   :mod:`~natfix.algs` (the SIP ALGs of others); :mod:`~natfix.shipped` finds the files that come along;
   :mod:`~natfix.stun` asks for our own address; :mod:`~natfix.far_signs` tells who sits behind a NAT of his
   own; :mod:`~natfix.hep`, :mod:`~natfix.pcapng` and :mod:`~natfix.masking` make copies for others.
3. state: :mod:`~natfix.mappings` (inside endpoint <-> outside endpoint), :mod:`~natfix.ports`,
   :mod:`~natfix.dialogs` (calls), :mod:`~natfix.registrations`, :mod:`~natfix.far_ends` (UAs outside that
   sit behind NATs of their own) with their :mod:`~natfix.pulse`,
   :mod:`~natfix.happenings` (events of calls and bindings), :mod:`~natfix.hearsay` (what outsiders say
   of inside hosts), :mod:`~natfix.spelling`, :mod:`~natfix.repeats`, :mod:`~natfix.deadlines`,
   :mod:`~natfix.streams` (TCP connections, each a :mod:`~natfix.stream` of two directions,
   :mod:`~natfix.stream_way`, with a :mod:`~natfix.stream_receiver`, a :mod:`~natfix.stream_framing` and a
   :mod:`~natfix.stream_sender`),
   :mod:`~natfix.quotas` (how fast one host may begin something),
   :mod:`~natfix.shares` (who may have the last media ports).
4. decision: :mod:`~natfix.engine` gives each message its :mod:`~natfix.turn`:
   :mod:`~natfix.signalling` (its mapping), :mod:`~natfix.callflow` (its call), :mod:`~natfix.media` (its
   SDP; :mod:`~natfix.targets` reads and writes the lines, :mod:`~natfix.policies` says whether, and who may
   talk at all),
   :mod:`~natfix.rewrite` (its headers, which :mod:`~natfix.headers` has in tables),
   :mod:`~natfix.far_fix` (the headers of far UAs), :mod:`~natfix.repairs` (faulty devices),
   :mod:`~natfix.keep_alives` and :mod:`~natfix.refreshing` (their NATs stay open),
   :mod:`~natfix.registering`; :mod:`~natfix.streaming` has SIP over TCP;
   :mod:`~natfix.media_mappings` has the media streams' ports,
   :mod:`~natfix.settling` what the kernel holds for them; :mod:`~natfix.reporting` takes
   what the shell reports; :mod:`~natfix.realms` knows inside from outside,
   :mod:`~natfix.links` one outside link from another, :mod:`~natfix.memory`
   survives a restart by :mod:`~natfix.rows`, :mod:`~natfix.listing` answers questions,
   :mod:`~natfix.levels` says how full everything is.
5. kernel: :mod:`~natfix.kernel.netfilter` for real, with :mod:`~natfix.kernel.elements` and
   :mod:`~natfix.kernel.conntrack` on :mod:`~natfix.kernel.netlink`, :mod:`~natfix.kernel.divert`,
   :mod:`~natfix.kernel.events`, :mod:`~natfix.kernel.sender` (packets of natfix's own),
   :mod:`~natfix.kernel.probe` (what this kernel can do) and
   :mod:`~natfix.kernel.libnftables`, :mod:`~natfix.kernel.trial` (rules for a limited time); an observer's is
   :mod:`~natfix.kernel.observed`; :mod:`~natfix.kernel.advertise` beside another NAT;
   :mod:`~natfix.kernel.fake` (:mod:`~natfix.kernel.fake_elements`,
   :mod:`~natfix.kernel.fake_conntrack`) for tests. What others have set up: :mod:`~natfix.interfaces`,
   :mod:`~natfix.firewall` (rule sets as :mod:`~natfix.firewall_nft` and :mod:`~natfix.firewall_iptables`
   read them; :mod:`~natfix.firewall_now` asks for them by :mod:`~natfix.programs`).
6. shells: :mod:`~natfix.cli` (also :mod:`~natfix.__main__`) runs the commands.
   `natfix run` is :mod:`~natfix.live`, after what :mod:`~natfix.startup` demands: :mod:`~natfix.loop` drives
   the engine with packets of the :mod:`~natfix.queue_reader`, :mod:`~natfix.upkeep` with all that is not a
   packet (:mod:`~natfix.watch` for links and ports, :mod:`~natfix.leak` for what left unNATed,
   :mod:`~natfix.background` for slow questions, :mod:`~natfix.advertiser` for the address that others see,
   :mod:`~natfix.resolver` for the names of those who may talk, which :mod:`~natfix.lookup` asks DNS for);
   all that by a clock of its own (:mod:`~natfix.timekeeping`; :mod:`~natfix.wall` is the machine's);
   :mod:`~natfix.systemd` is told how it goes;
   :mod:`~natfix.control` answers other commands,
   :mod:`~natfix.journal` logs, :mod:`~natfix.store` writes, what it is behind by is in
   :mod:`~natfix.recent` (whose files they are: :mod:`~natfix.ownership`), :mod:`~natfix.exporting` hands
   out copies,
   :mod:`~natfix.hook` runs the operator's program,
   :mod:`~natfix.shortages` warns before something runs out,
   :mod:`~natfix.metrics` are for Prometheus, `natfix page` is
   :mod:`~natfix.page` (:mod:`~natfix.page_view`). `natfix check` is :mod:`~natfix.check`
   (:mod:`~natfix.check_host`, :mod:`~natfix.check_lists`, :mod:`~natfix.check_system`,
   :mod:`~natfix.check_firewall`,
   :mod:`~natfix.check_own`, :mod:`~natfix.check_outside`, :mod:`~natfix.check_fixers`,
   in the words of :mod:`~natfix.findings`),
   `natfix init` :mod:`~natfix.init`, `natfix rules` :mod:`~natfix.rules`, `natfix up` :mod:`~natfix.up`
   (what it would change: :mod:`~natfix.plan`), which leaves the daemon an :mod:`~natfix.order`; a trial
   hangs on its :mod:`~natfix.parachute`, an observer has a :mod:`~natfix.log_reader`; `natfix reload` is
   :mod:`~natfix.reload`; :mod:`~natfix.drain` waits for calls to end, while
   :mod:`~natfix.draining` refuses new ones. `natfix down` is
   :mod:`~natfix.removal`. Whoever looks is answered by :mod:`~natfix.seeing`, which has the events of the
   :mod:`~natfix.monitor` and the :mod:`~natfix.agents`, and whose :mod:`~natfix.listener` has calls' audio
   looked at (:mod:`~natfix.audio`, in the engine, judges); the :mod:`~natfix.chronicle` keeps calls' messages
   for :mod:`~natfix.explaining`, which :mod:`~natfix.explained` makes text of, and
   :mod:`~natfix.capturing` hands them to `natfix capture`, :mod:`~natfix.capture`, which makes
   :mod:`~natfix.capture_packets` of them for a file (:mod:`~natfix.handing_over`);
   `natfix bundle` is :mod:`~natfix.bundle` of :mod:`~natfix.bundle_parts`; people and places are taken out of
   what is handed to others by :mod:`~natfix.redact`, of texts by :mod:`~natfix.redact_text`; he asks by
   :mod:`~natfix.asking`, and
   :mod:`~natfix.show` makes text of answers, in :mod:`~natfix.tables`, for a :mod:`~natfix.terminal`.
7. replay: :mod:`~natfix.replay` reads captures and says what is wrong, in the words of
   :mod:`~natfix.replay.model`. An input is a
   :mod:`~natfix.replay.source` of octets that :mod:`~natfix.replay.capture` recognises:
   :mod:`~natfix.replay.pcap_reader`, :mod:`~natfix.replay.pcapng_reader`, :mod:`~natfix.replay.snoop`, or
   :mod:`~natfix.replay.texts` with :mod:`~natfix.replay.text_heads`, :mod:`~natfix.replay.hexdump` and
   :mod:`~natfix.replay.sip_text`, all noted in :mod:`~natfix.replay.counts`.
   :mod:`~natfix.replay.sightings` takes it apart by :mod:`~natfix.replay.link`, :mod:`~natfix.replay.ip`,
   :mod:`~natfix.replay.fragments` and :mod:`~natfix.replay.datagrams` into
   :mod:`~natfix.replay.messages` (out of :mod:`~natfix.replay.tcp` by :mod:`~natfix.replay.framing`),
   :mod:`~natfix.replay.icmp` errors and :mod:`~natfix.replay.media_seen`.
   :mod:`~natfix.replay.replay` makes a :mod:`~natfix.replay.result` in two passes, with a
   :mod:`~natfix.replay.spool` of :mod:`~natfix.replay.parsed` messages between them:
   :mod:`~natfix.replay.network` finds out where the NAT is,
   :mod:`~natfix.replay.stages` and :mod:`~natfix.replay.passages` what is one packet,
   :mod:`~natfix.replay.drive` shows it to the engine on a :mod:`~natfix.replay.gateway` in memory (with
   :mod:`~natfix.replay.echoes` of what natfix would have shown), :mod:`~natfix.replay.conversations` puts
   it together and :mod:`~natfix.replay.summaries` sums it up; :mod:`~natfix.replay.work` shows how far it is.
   The command is :mod:`~natfix.replay.main`; pass 1 is :mod:`~natfix.replay.reading`, with
   :mod:`~natfix.replay.redact` in between where that is wanted. It prints
   :mod:`~natfix.replay.as_text`, :mod:`~natfix.replay.as_json` or :mod:`~natfix.replay.mermaid`; it writes
   the repaired capture (:mod:`~natfix.replay.write`) and an HTML :mod:`~natfix.replay.report` with
   :mod:`~natfix.replay.ladder`, :mod:`~natfix.replay.plots` and :mod:`~natfix.replay.diff`.
   What is wrong is told by rules, which :mod:`~natfix.replay.diagnosis` asks:
   :mod:`~natfix.replay.symptoms.audio`,
   :mod:`~natfix.replay.symptoms.dialogs` (both ask :mod:`~natfix.replay.symptoms.talking` who wants media
   where), :mod:`~natfix.replay.symptoms.media_changes`, :mod:`~natfix.replay.symptoms.transfers`,
   :mod:`~natfix.replay.symptoms.registrations`, :mod:`~natfix.replay.symptoms.gateways` (with
   :mod:`~natfix.replay.symptoms.fixers` and :mod:`~natfix.replay.symptoms.replies`),
   :mod:`~natfix.replay.symptoms.transport` (with :mod:`~natfix.replay.symptoms.families`),
   :mod:`~natfix.replay.symptoms.abuse`; they read messages by :mod:`~natfix.replay.symptoms.reading`, know
   :mod:`~natfix.replay.products` from what those leave behind, and strangers from
   :mod:`~natfix.replay.visitors`.
"""

__version__ = "0.1.0"
