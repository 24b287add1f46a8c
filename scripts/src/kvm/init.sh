#!/bin/busybox sh
# The first process of the outer guest: modules, file systems, then the lane's own script in the real root.
# Disks come in the order of QEMU's command line: vda the root, vdb the scratch disk, vdc the plan.
PATH=/bin
box() { /bin/busybox "$@"; }
fail() {
  echo "lane: $*" > /dev/console
  box dmesg > /dev/console
  box poweroff -f
}
box mount -t devtmpfs dev /dev
box mount -t proc proc /proc
box mount -t sysfs sys /sys
for module in /modules/*.ko; do
  options=
  case $module in
    # Splitting huge pages against a bug of real processors costs time and shows nothing here.
    *-kvm.ko) options=nx_huge_pages=never ;;
    *-kvm_amd.ko) options='npt=1 nested=0' ;;
  esac
  box insmod "$module" $options || echo "lane: $module does not load" > /dev/console
done
box mount -t erofs -o ro /dev/vda /lower || fail "the root does not mount"
box mount -t tmpfs -o size=512m upper /upper && box mkdir /upper/new /upper/work
box mount -t overlay -o lowerdir=/lower,upperdir=/upper/new,workdir=/upper/work root /root || fail "the overlay does not mount"
box mount -t erofs -o ro /dev/vdc /root/lane || fail "the plan does not mount"
for place in dev proc sys; do box mount --move /$place /root/$place; done
exec /bin/busybox switch_root /root /bin/bash /lane/start.sh
