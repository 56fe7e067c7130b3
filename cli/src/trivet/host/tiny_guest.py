"""What is inside the tiny guest: its files, kernel modules and boot configuration, as text.

All of it runs on busybox. It must hold the promises that tests and people rely on: on the
serial console `addresses: ...`, `boots: N` and then `READY`; data in /data that outlives
a restart; HTTP on port 80 and echo on port 7; off by the power button; no restart by itself.
"""

from __future__ import annotations

MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio-rng",
    "virtio_balloon",
    "virtio_console",
    "button",
    "evdev",
)

FOLDERS = ("bin", "dev", "proc", "sys", "run", "tmp", "data", "modules", "www", "etc", "root")

# A panic stops the guest rather than restart it: what happened stays to be seen.
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=0 mitigations=off no_timer_check tsc=reliable lpj=4000000"
    " cryptomgr.notests random.trust_cpu=on sysrq_always_enabled=0 rdinit=/init"
)

SYSLINUX = f"""DEFAULT trivet
PROMPT 0
TIMEOUT 0
LABEL trivet
  KERNEL /LINUX
  INITRD /INITRD.GZ
  APPEND {KERNEL_ARGUMENTS}
"""

_INIT = r"""#!/bin/busybox sh
export PATH=/bin HOME=/root TERM=vt100
/bin/busybox --install -s /bin
ln -s /bin /sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
mount -t tmpfs run /run
ln -sf /proc/mounts /etc/mtab
echo 0 >/proc/sys/kernel/sysrq
while read module; do insmod /modules/$module; done </modules/order

# The power button. acpid reads the input devices that are there when it begins, and ends where
# there are none; busybox's looks for this very file.
(while :; do acpid -f -l /dev/null -p /run/acpid.pid; sleep 1; done) </dev/null >/dev/null 2>&1 &

# Processors and memory that come later are put to use.
uevent /bin/hotplug >/dev/null 2>&1 &

/bin/data
hostname tiny
ip link set lo up
for path in /sys/class/net/eth*; do
  [ -e "$path" ] || continue
  card=${path##*/}
  echo 0 >/proc/sys/net/ipv6/conf/$card/accept_dad
  ip link set "$card" up
  # Asks once a second for ten seconds, and goes on in the background if nobody answers.
  udhcpc -i "$card" -s /bin/lease -t 10 -T 1 -A 5 -b -x hostname:"$(hostname)" >/dev/null 2>&1
done

echo "<h1>$(hostname)</h1><p>boots: $(cat /data/boots 2>/dev/null)</p>" >/www/index.html
httpd -p 80 -h /www
(while :; do nc -l -p 7 -e /bin/cat; done) >/dev/null 2>&1 &

echo "addresses: $(addresses)"
echo "boots: $(cat /data/boots 2>/dev/null || echo unknown)"
echo READY

# The guest agent, after all else: nobody waits for it.
mkdir -p /dev/virtio-ports
for port in /sys/class/virtio-ports/*; do
  ln -sf /dev/${port##*/} /dev/virtio-ports/$(cat $port/name 2>/dev/null) 2>/dev/null
done
port=/dev/virtio-ports/org.qemu.guest_agent.0
if [ -x /usr/sbin/qemu-ga ] && [ -e $port ]; then
  (while :; do /usr/sbin/qemu-ga -m virtio-serial -p $port -t /run; sleep 1; done) \
    </dev/null >/dev/null 2>&1 &
fi
cd /root
while :; do
  setsid cttyhack sh -l
  sleep 1
done
"""

# The space behind the boot partition becomes /data: a second partition, made at the first boot.
# It is formatted only where there is no ext superblock: data is never thrown away by mistake.
_DATA = r"""#!/bin/busybox sh
disk=/dev/vda
[ -b $disk ] || exit 0
if [ ! -b ${disk}2 ]; then
  printf 'n\np\n2\n\n\nw\n' | fdisk $disk >/dev/null 2>&1
  for i in 1 2 3 4 5 6 7 8 9 10; do [ -b ${disk}2 ] && break; sleep 0.2; done
fi
magic=$(dd if=${disk}2 bs=1 skip=1080 count=2 2>/dev/null | hexdump -e '1/2 "%04x"')
[ "$magic" = ef53 ] || mke2fs -i 65536 -L data ${disk}2 >/dev/null 2>&1
mount -t ext4 ${disk}2 /data 2>/dev/null || { echo "data: no disk to keep it on"; exit 0; }
boots=$(cat /data/boots 2>/dev/null || echo 0)
echo $((boots + 1)) >/data/boots
sync
"""

_LEASE = r"""#!/bin/busybox sh
case "$1" in
  deconfig)
    ip -4 addr flush dev "$interface"
    ;;
  bound|renew)
    ip addr replace "$ip/${mask:-24}" dev "$interface"
    [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
    [ -n "$hostname" ] && hostname "$hostname"
    if [ -n "$staticroutes" ]; then
      set -- $staticroutes
      while [ $# -ge 2 ]; do
        case "$2" in
          0.0.0.0) ip route replace "$1" dev "$interface" ;;
          *) ip route replace "$1" via "$2" dev "$interface" ;;
        esac
        shift 2
      done
    else
      for gateway in $router; do ip route replace default via "$gateway" dev "$interface"; done
    fi
    : >/etc/resolv.conf
    [ -n "$domain" ] && echo "search $domain" >>/etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
    ;;
esac
exit 0
"""

_ADDRESSES = r"""#!/bin/busybox sh
found=$(ip -o addr show scope global | awk '{print $4}' | sed 's,/.*,,' | tr '\n' ' ')
found=${found% }
echo "${found:-none}"
"""

_HOTPLUG = r"""#!/bin/busybox sh
case "$ACTION/$SUBSYSTEM" in
  add/cpu) echo 1 >"/sys$DEVPATH/online" ;;
  add/memory) echo online >"/sys$DEVPATH/state" ;;
esac 2>/dev/null
exit 0
"""

_POWER_BUTTON = r"""#!/bin/busybox sh
sync
umount /data 2>/dev/null
poweroff -f
"""

FILES = {
    "init": _INIT,
    "bin/data": _DATA,
    "bin/lease": _LEASE,
    "bin/addresses": _ADDRESSES,
    "bin/hotplug": _HOTPLUG,
    "etc/acpi/PWRF/00000080": _POWER_BUTTON,
    "etc/passwd": "root::0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
}
