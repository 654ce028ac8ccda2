#!/bin/busybox sh
# /init of the guest's initramfs: the host's root, read-only, below a writable layer in memory; then the
# program that guest.init= on the kernel's command line names (words separated by commas), as a service where
# guest.systemd= names systemd.
/bin/busybox mkdir -p /proc /sys /dev /host /layer /root
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

fail() {
    echo "guest: $*"
    reboot -f
}
option() { tr ' ' '\n' </proc/cmdline | sed -n "s/^guest\.$1=//p"; }

for module in $(cat /modules/order); do
    insmod "/modules/$module" || fail "module $module cannot be loaded"
done
# cache=loose: the host's files hardly change meanwhile, and each look-up would be a round trip.
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose host /host || fail "no host share"
mount -t tmpfs -o mode=755 layer /layer
mkdir /layer/changes /layer/work
mount -t overlay -o lowerdir=/host,upperdir=/layer/changes,workdir=/layer/work root /root || fail "no root"

# What a booted Debian has: its modules where modprobe looks, and a modprobe for the kernel to call.
mkdir -p /root/lib/modules
ln -sfn "$(option modules)" "/root/lib/modules/$(uname -r)"
[ -e /root/sbin/modprobe ] || ln -s "$(option busybox)" /root/sbin/modprobe

mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=755 run /root/run
mkdir /root/run/lock
hostname localhost
ip link set lo up
program=$(option init | tr ',' ' ')
if systemd=$(option systemd) && [ -n "$systemd" ]; then
    # Only what every Debian starts first, and our program: the host's own services stay down.
    mkdir -p /root/run/systemd/system /root/run/tmpfiles.d
    : >/root/run/tmpfiles.d/tmp.conf        # instead of Debian's, by which a boot empties /tmp
    cat >/root/run/systemd/system/natfix-guest.service <<END
[Unit]
Requires=basic.target
After=basic.target
[Service]
ExecStart=$program
END
    program="$systemd --unit=natfix-guest.service"
fi
for directory in proc sys dev; do
    mount --move "/$directory" "/root/$directory"
done
# shellcheck disable=SC2086
exec switch_root /root $program
