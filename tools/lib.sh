# Shell functions of tools/test, tools/demo and tools/lab: install what is missing, once, and nothing else.
# To be sourced, by bash, with "set -euo pipefail". Messages go to standard error.

PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$PROJECT/.venv
POLICY=/usr/sbin/policy-rc.d
MARK="installed for a moment by natfix (tools/lib.sh)"

# What the lab and the daemon run on, and what the package netfilterqueue is compiled with.
LAB_PACKAGES="nftables libnftables1 iptables conntrack iproute2 kamailio baresip-core sip-tester tcpdump"
BUILD_PACKAGES="python3 python3-venv python3-dev gcc libc6-dev libnfnetlink-dev libnetfilter-queue-dev"
TEST_PACKAGES="tshark sngrep linphone-cli procps chromium chromium-driver sipvicious debootstrap man-db systemd openssl"
# What tools/compare and tools/bench set natfix beside, besides the kernel's own.
PEER_PACKAGES="rtpengine-daemon"
# Whose rules natfix is tried beside; nothing of theirs is switched on.
FIREWALL_PACKAGES="ufw firewalld"
# The emulated guest, with Debian's own kernel.
GUEST_PACKAGES="qemu-system-x86 busybox-static"

say() { printf '%s\n' "${0##*/}: $*" >&2; }
fail() { local code=$1; shift; say "$*"; exit "$code"; }

need_root() {
    [ "$(id -u)" = 0 ] || fail 4 "needs root for network namespaces and packages: run it as root, or with sudo."
}

# Somebody who answers on 5060 here is somebody's telephone system: nothing is installed beside it.
refuse_beside_sip() {
    # Columns: number, own address:port in hexadecimal, peer, state (0A: TCP listens).
    if { cat /proc/net/udp /proc/net/udp6 2>/dev/null || true; } | awk '$2 ~ /:13C4$/ { found = 1 } END { exit !found }' ||
        { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || true; } |
        awk '$2 ~ /:13C4$/ && $4 == "0A" { found = 1 } END { exit !found }'
    then
        fail 75 "a program listens on port 5060 of this machine, so SIP is in service here: use another machine (or stop it)."
    fi
}

missing_packages() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s ' "$package"
    done
}

# Takes back what forbid_services did, also what a killed run left behind.
allow_services() {
    if [ -e "$POLICY.natfix-saved" ]; then
        mv -f "$POLICY.natfix-saved" "$POLICY"
    elif grep -qsF "$MARK" "$POLICY"; then
        rm -f "$POLICY"
    fi
}

# A policy-rc.d that says no already (a container's, for instance) stays as it is.
forbid_services() {
    allow_services
    if [ -e "$POLICY" ]; then
        local answer=0
        "$POLICY" kamailio start >/dev/null 2>&1 || answer=$?
        [ "$answer" = 101 ] && return
        mv "$POLICY" "$POLICY.natfix-saved"
    fi
    printf '#!/bin/sh\n# %s: no service is started.\nexit 101\n' "$MARK" >"$POLICY"
    chmod 755 "$POLICY"
}

# These packages enable their services for the next boot; the lab runs its own and wants none.
disable_new_services() {
    local package
    for package in "$@"; do
        case $package in kamailio | rtpengine-daemon | firewalld | ufw) ;; *) continue ;; esac
        if command -v systemctl >/dev/null; then
            systemctl disable "$package.service" >/dev/null 2>&1 || true
        else
            update-rc.d "$package" disable >/dev/null 2>&1 || true
        fi
    done
}

install_packages() {
    local missing log
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || fail 5 "apt-get is missing; please install: $missing"
    say "installing Debian packages (no recommends, no service is started): $missing"
    log=$(mktemp)
    trap 'allow_services; rm -f "$log"' EXIT
    trap 'exit 130' INT TERM HUP
    forbid_services
    # shellcheck disable=SC2086
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-remove --no-install-recommends $missing; } \
        >"$log" 2>&1 </dev/null
    then
        tail -n 20 "$log" >&2
        fail 1 "apt-get could not install: $missing"
    fi
    disable_new_services $missing
    allow_services
    rm -f "$log"
    trap - EXIT INT TERM HUP
}

# .venv follows pyproject.toml; nothing is downloaded while neither it nor the interpreter changes.
make_venv() {
    local extras=$1 stamp
    stamp="$(/usr/bin/python3 -V) $extras $(sha256sum <"$PROJECT/pyproject.toml")"
    [ "$(cat "$VENV/natfix-stamp" 2>/dev/null)" = "$stamp" ] && return 0
    say "building $VENV (Python packages: $extras)"
    /usr/bin/python3 -m venv "$VENV" || fail 1 "python3 -m venv $VENV failed"
    "$VENV/bin/pip" install --quiet --disable-pip-version-check -e "$PROJECT[$extras]" ||
        fail 1 "pip could not install natfix[$extras] into $VENV (is the package index reachable?)"
    printf '%s\n' "$stamp" >"$VENV/natfix-stamp"
}

prepare() {
    need_root
    refuse_beside_sip
    # shellcheck disable=SC2086
    install_packages $LAB_PACKAGES $BUILD_PACKAGES "$@"
    make_venv live,test
    export NATFIX_CALLER=$PWD
    cd "$PROJECT"
}

# Debian's ufw does not stand netfilter-persistent beside it, which stays where somebody uses it.
prepare_firewalls() {
    local package
    for package in $FIREWALL_PACKAGES; do
        (install_packages "$package") || say "no $package, so the tests beside it will be skipped."
    done
}

# Where the guest cannot be had, its tests are skipped, with the reason; all others run.
prepare_guest() {
    # shellcheck disable=SC2086
    if ! (install_packages $GUEST_PACKAGES); then
        say "no emulated guest, so the tests on Debian's own kernel will be skipped."
        return 0
    fi
    [ -e "$PROJECT/.guest" ] || say "downloading Debian's kernel into .guest (it is unpacked there, not installed)"
    "$VENV/bin/python" -m tests.guest.kernel >/dev/null ||
        say "no kernel for the guest, so the tests on Debian's own kernel will be skipped."
}
