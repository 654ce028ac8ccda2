"""The real programs of the lab, one file each. All are started with ``lab.start(program)``."""

from tests.lab.programs.baresip import Baresip
from tests.lab.programs.capture import Capture
from tests.lab.programs.kamailio import Kamailio
from tests.lab.programs.linphone import Linphone
from tests.lab.programs.nat_proxy import NatProxy
from tests.lab.programs.rtp_agent import RtpAgent
from tests.lab.programs.rtp_crowd import RtpCrowd
from tests.lab.programs.sipp import Sipp, SippResult

__all__ = ["Baresip", "Capture", "Kamailio", "Linphone", "NatProxy", "RtpAgent", "RtpCrowd", "Sipp",
           "SippResult"]
