#!/bin/sh
# A firewall managed by firewalld: one policy that lets phones out; the rest firewalld has already.
#
# For:        Debian's, Fedora's and others' firewalld, with FirewallBackend=nftables (the default) or
#             iptables: both accept `ct status dnat` and what is established by themselves, and the zone
#             "external" masquerades. firewalld's chains come after natfix's (priorities + 10), and a reload
#             replaces its own tables only.
# Change:     eth0 (outside) and eth1, eth2 (inside).
# natfix.toml: nothing. With a PBX on this machine: [gateway] pbx = "local", and the last line below.
# Load:       as root, while firewalld runs; it is permanent.
#   $ sh firewalld.sh
# Check:      `natfix check` says "forward ok", "nat ok", "helpers ok".
# Take away:
#   $ firewall-cmd --permanent --delete-policy=phones-out
#   $ firewall-cmd --permanent --zone=external --remove-interface=eth0
#   $ firewall-cmd --permanent --zone=internal --remove-interface=eth1
#   $ firewall-cmd --permanent --zone=internal --remove-interface=eth2
#   $ firewall-cmd --reload

set -e
firewall-cmd --permanent --zone=external --change-interface=eth0
firewall-cmd --permanent --zone=internal --change-interface=eth1
firewall-cmd --permanent --zone=internal --change-interface=eth2
firewall-cmd --permanent --new-policy=phones-out
firewall-cmd --permanent --policy=phones-out --add-ingress-zone=internal
firewall-cmd --permanent --policy=phones-out --add-egress-zone=external
firewall-cmd --permanent --policy=phones-out --set-target=ACCEPT
firewall-cmd --reload

# A PBX on this machine: its port, and never --add-service=sip: that attaches the kernel's SIP helper, a
# second fixer.
#firewall-cmd --permanent --zone=external --add-port=5060/udp
