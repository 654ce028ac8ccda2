"""What natfix costs RTP: packet rates beside plain masquerade, and natfix's own work while streams run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import mean, stdev

from tests.bench.arrangements import NATFIX, Arrangement, masquerade, with_natfix
from tests.bench.load import CALLEE, CALLEE_RTP_PORT, CALLER, FIRST_RTP_PORT, Calls
from tests.bench.processor import cpu_ticks
from tests.bench.report import Results
from tests.lab import namespaces
from tests.lab.gateway import Natfix
from tests.lab.host import PROJECT, Host, LabError, Process, wait_until

STREAMS = 50            # one per direction of a call
WHOLE = 0.99            # of the packets; the last ones are still on their way when counting ends
FOREVER = 3600.0        # seconds that a call lasts
STUDENT_95 = {7: 2.447, 30: 2.045}      # by number of pairs: the 97.5 % quantile with one degree less
SHORTEST = 0.1          # seconds of a blast before the one that counts, to make the flow


def measure_rates(pairs: int, seconds: float) -> Results:
    """Return the ratio of packet rates, with and without natfix in turns on one gateway."""
    with masquerade() as arrangement, _sink(arrangement.lab[CALLEE]):
        natfix = Natfix(arrangement.lab, NATFIX)
        kinds: list[Callable[[], float]] = [
            lambda: _plain_rate(arrangement, seconds), lambda: _natfix_rate(arrangement, natfix, seconds)]
        rates = []
        for pair in range(pairs + 1):
            order = kinds if pair % 2 else kinds[::-1]
            found = [kind() for kind in order]
            rates.append(found if pair % 2 else found[::-1])
    ratios = [with_natfix_ / plain for plain, with_natfix_ in rates[1:]]      # the first pair warms up
    middle, half = mean(ratios), STUDENT_95[pairs] * stdev(ratios) / pairs ** 0.5
    return {
        "over_masquerade": round(middle, 4),
        "interval_95": [round(middle - half, 4), round(middle + half, 4)],
        "pairs": pairs, "masquerade_packets_per_second": round(mean(rate for rate, _ in rates[1:])),
    }


def measure_streams(seconds: float) -> Results:
    """Return natfix's CPU ticks and queued packets while streams run for *seconds*."""
    with with_natfix() as arrangement:
        lab, natfix = arrangement.lab, arrangement.natfix
        assert natfix is not None
        calls = STREAMS // 2
        Calls(lab, calls, calls, talk=FOREVER)
        rows = wait_until(lambda: _streams(natfix, calls), 20.0, f"{calls} calls")
        caller, callee = lab[CALLER], lab[CALLEE]
        ends = [_stream(caller, [(inside, f"{callee.address}:{CALLEE_RTP_PORT}") for inside, _ in rows]),
                _stream(callee, [(CALLEE_RTP_PORT, outside) for _, outside in rows])]
        time.sleep(3.0)         # what the calls themselves made natfix do is over
        pid = arrangement.processes[0]
        ticks, queued = cpu_ticks(pid), _queued(lab.gateway)
        time.sleep(seconds)
        ticks, queued = cpu_ticks(pid) - ticks, _queued(lab.gateway) - queued
        counted = [_end(end) for end in ends]
        sent, received = (sum(count[key] for count in counted) for key in ("sent", "received"))
        if received < WHOLE * sent:
            raise LabError(f"only {received} of {sent} RTP packets arrived")
        return {"natfix_cpu_ticks": ticks, "queued_packets": queued, "streams": STREAMS, "seconds": seconds,
                "sent": sent, "received": received}


def _plain_rate(arrangement: Arrangement, seconds: float) -> float:
    return _rate(arrangement, seconds)


def _natfix_rate(arrangement: Arrangement, natfix: Natfix, seconds: float) -> float:
    """Return the rate of a stream of a call; natfix comes and goes, and so do its rules."""
    natfix.start()
    call = Calls(arrangement.lab, 1, 10, talk=FOREVER)
    outside = wait_until(lambda: _streams(natfix, 1), 10.0, "a call")[0][1]
    rate = _rate(arrangement, seconds, outside.rpartition(":")[2])
    call.process.kill()
    natfix.down()
    return rate


def _rate(arrangement: Arrangement, seconds: float, outside_port: str = "") -> float:
    """Return the packets per second that come to the callee; from *outside_port* if given, or it fails."""
    caller, callee = arrangement.lab[CALLER], arrangement.lab[CALLEE]
    command = [sys.executable, str(PROJECT / "tests/bench/blast.py"), f"{caller.address}:{FIRST_RTP_PORT}",
               f"{callee.address}:{CALLEE_RTP_PORT}"]
    caller.run([*command, str(SHORTEST)])
    before = _came(callee)
    caller.run([*command, str(seconds)])
    rate = (_came(callee) - before) / seconds
    # Deleted, so that the kernel decides the next round's flow anew.
    flow = arrangement.lab.gateway.run(
        ["conntrack", "-D", "-p", "udp", "--orig-port-src", str(FIRST_RTP_PORT)], check=False).stdout
    if f"dport={outside_port}" not in flow:
        raise LabError(f"the stream did not leave from port {outside_port}: {flow}")
    return rate


def _sink(host: Host) -> object:
    """Return a socket that takes the packets, and reads none."""
    made = namespaces.socket_in(host.namespace)
    made.bind((host.address, CALLEE_RTP_PORT))
    return made


def _came(host: Host) -> int:
    return int(host.run(["cat", f"/sys/class/net/{host.interface}/statistics/rx_packets"]).stdout)


def _streams(natfix: Natfix, calls: int) -> list[tuple[int, str]]:
    """Return the inside port and the outside endpoint of each call's RTP, once all *calls* are up."""
    rows = [row for row in natfix.request("calls")["calls"] if row["state"] == "confirmed"]
    found = [(int(stream["inside"].rpartition(":")[2]), stream["outside"])
             for row in rows for stream in row["streams"] if stream["media"] == "audio"]
    return found if len(found) == calls else []


def _stream(host: Host, rows: list[tuple[int, str]]) -> Process:
    process = host.popen([sys.executable, str(PROJECT / "tests/bench/streams.py"), host.address,
                          json.dumps(rows)], "streams", stdin=subprocess.PIPE)
    process.wait_for("ready")
    return process


def _end(process: Process) -> dict[str, int]:
    assert process.popen.stdin is not None
    process.popen.stdin.close()
    process.wait(5.0)
    counted: dict[str, int] = json.loads(process.output().splitlines()[-1])
    return counted


def _queued(gateway: Host) -> int:
    """Return the number of the last packet that was queued for natfix (nfnetlink_queue: id_sequence)."""
    listed = gateway.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout
    return int(listed.split()[7])
