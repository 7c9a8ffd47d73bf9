#!/bin/sh
# Two controllers on disks that each reaches as an initiator of its own, with fence = "pr": persistent reservations as a
# real kernel and a real target carry them out. The owner is stopped and goes on later, under a verifying load.
#
# Run as root on a machine of its own (a virtual machine will do): it loads modules, makes iSCSI sessions to itself, and uses
# the default ports. Needs the kernel's LIO target (target_core_file, iscsi_target_mod), open-iscsi, sg3-utils and udev.
#
#   TWINCELL_BIN=.../twincell TWINCELL_LOAD=.../twincell-load rig/guest/fence-pr.sh
set -eu
T=${TWINCELL_BIN:?} L=${TWINCELL_LOAD:?}
LUNS="0 1 2 3"
TARGET=iqn.2026-11.test:disks PORTAL=127.0.0.1:3299
INITIATOR=iqn.2026-11.test

until_is() { # what, command
  i=0
  until eval "$2"; do
    i=$((i + 1))
    if [ $i -gt 300 ]; then echo "waited 90 s for $1"; $T status; exit 1; fi
    sleep 0.3
  done
}

# Four disks behind an iSCSI target.
uname -r
modprobe -a target_core_mod target_core_file iscsi_target_mod iscsi_tcp sd_mod sg
C=/sys/kernel/config/target TPG=/sys/kernel/config/target/iscsi/$TARGET/tpgt_1
mkdir -p /var/target/pr $C/iscsi $TPG
for n in $LUNS; do
  truncate -s 128M /tmp/d$n
  mkdir -p $C/core/fileio_$n/d$n $TPG/lun/lun_$n
  echo "fd_dev_name=/tmp/d$n,fd_dev_size=134217728" > $C/core/fileio_$n/d$n/control
  echo 1 > $C/core/fileio_$n/d$n/enable
  echo serial-$n > $C/core/fileio_$n/d$n/wwn/vpd_unit_serial
  ln -s $C/core/fileio_$n/d$n $TPG/lun/lun_$n/x
done
mkdir -p $TPG/np/$PORTAL
for i in a b; do
  mkdir -p $TPG/acls/$INITIATOR:$i
  for n in $LUNS; do
    # The kernel maps the LUNs that are there by itself where it is set up so.
    [ -d $TPG/acls/$INITIATOR:$i/lun_$n ] || mkdir $TPG/acls/$INITIATOR:$i/lun_$n
    ls $TPG/acls/$INITIATOR:$i/lun_$n | grep -qx x || ln -s $TPG/lun/lun_$n $TPG/acls/$INITIATOR:$i/lun_$n/x || true
  done
done
echo 0 > $TPG/attrib/authentication
echo 1 > $TPG/enable

# Two initiators: each sees the disks under names of its own.
echo "InitiatorName=$INITIATOR:a" > /etc/iscsi/initiatorname.iscsi
mkdir -p /run/lock/iscsi
iscsid
for i in a b; do
  iscsiadm -m iface -I $i --op new
  iscsiadm -m iface -I $i --op update -n iface.initiatorname -v $INITIATOR:$i
  iscsiadm -m node --op new -T $TARGET -p $PORTAL,1 -I $i
  iscsiadm -m node -T $TARGET -p $PORTAL -I $i --op update -n node.session.auth.authmethod -v None
  iscsiadm -m node -T $TARGET -p $PORTAL -I $i --login
done
disk() { # initiator, LUN
  for s in /sys/class/iscsi_session/session*; do
    [ "$(cat $s/initiatorname)" = $INITIATOR:$1 ] || continue
    for b in $s/device/target*/*:$2/block/sd*; do [ ! -e $b ] || echo /dev/${b##*/}; done
  done
}
until_is "the disks" '[ -b "$(disk a 3)" ] && [ -b "$(disk b 3)" ]'
udevadm settle

# A cell on the disks of a; a second file names them as b sees them.
$T cell create --dir /tmp/cell $(for n in $LUNS; do echo --disk $(disk a $n); done) --cache 8M
sed -i 's/^disks = /fence = "pr"\ndisks = /' /tmp/cell/cell.toml
sed "$(for n in $LUNS; do echo "s#\"$(disk a $n)\"#\"@$n\"#;"; done)" /tmp/cell/cell.toml |
  sed "$(for n in $LUNS; do echo "s#\"@$n\"#\"$(disk b $n)\"#;"; done)" > /tmp/cell/cell-b.toml
export TWINCELL_DIR=/tmp/cell
trap 'for c in A B; do echo "--- $c"; tail -n 30 /tmp/log-$c; done' EXIT
setsid $T controller run --config /tmp/cell/cell.toml --name A > /tmp/log-A 2>&1 &
setsid $T controller run --config /tmp/cell/cell-b.toml --name B > /tmp/log-B 2>&1 &

# The first value of a key in the status.
field() { $T status --json | tr -d ' ",' | sed -n "s/^$1://p" | head -1; }
# Whether B's key is the only one on every disk: it ends in 02.
only_b() {
  for n in $LUNS; do
    k=$(sg_persist -n -i -k $(disk b $n) | sed -n 's/^ *0x//p')
    [ "$(echo "$k" | wc -l)" = 1 ] && [ "${k%02}" != "$k" ] || return 1
  done
}
keys() { sg_persist -n -i -k $(disk b 0) | grep -c '^ *0x'; }
until_is "a mirrored cell" '[ "$(field mirroring)" = on ]'
$T lun create data --size 16M
sg_persist -n -i -k $(disk a 0)
sg_persist -n -i -r $(disk a 0)
[ "$(keys)" = 2 ]

# The owner is stopped under load. Nobody kills it: the disks refuse its writes.
$L check 40 2 1 8 own - nbd://127.0.0.1:10809/data nbd://127.0.0.1:10810/data > /tmp/load 2>&1 &
LOAD=$!
A=$(field pid)
until_is "data at stake" '[ "$(field mirroring)" = on ] && [ "$(field dirty_buffers)" -gt 0 ]'
kill -STOP $A
echo "A ($A) is stopped"
until_is "the fence of B" only_b
for n in $LUNS; do
  if dd if=/dev/zero of=$(disk a $n) bs=4096 count=1 seek=30000 oflag=direct 2> /tmp/dd; then
    echo "disk $n takes a write of A"
    exit 1
  fi
  grep "Invalid exchange" /tmp/dd
done

until_is "service by B" '[ "$(field mirroring)" = off ] && ! $T status | grep -q "hosts wait"'
$T events --takeovers

# It goes on, finds that it is out, and joins.
kill -CONT $A
until_is "a mirrored cell" '[ "$(field mirroring)" = on ]'
[ "$(keys)" = 2 ]
[ "$(field pid)" = $A ]
if ! wait $LOAD; then cat /tmp/load; exit 1; fi
cat /tmp/load
until_is "a whole cell" '[ "$(field state)" = ok ]'
$T cell stop
trap - EXIT
echo "persistent reservations: all is well"
