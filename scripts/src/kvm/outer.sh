#!/usr/bin/env bash
# Makes the outer guest in the current folder: `vmlinuz`, `initrd.img`, `root.erofs` and `release`. What else it leaves
# here may go. Nothing is installed on this host, and nothing of the packages is run but busybox, which is static.
#   outer.sh SUITE INIT PACKAGE...
set -euo pipefail
suite=$1 init=$2
shift 2
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
packages=$(IFS=,; echo "$*")

# The host's own sources of this release, and its way to them, so that no address is written down here.
sources=()
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources}; do
  if [ -r "$file" ] && grep -qE "^[^#]*\b$suite\b" "$file" && grep -qw main "$file"; then sources+=("$file"); fi
done
way=()
while IFS= read -r line; do way+=("--aptopt=$line"); done < <(
  apt-config dump | grep -E '^Acquire::(https?::|Retries|ForceIPv|Check-)' | grep -vE ' "";$|Proxy-Auto' || true)

# As root, whatever mmdebstrap mounts ends with a namespace of its own; where there may be none, it cannot mount either.
run=(mmdebstrap --mode=chrootless)
if [ "$(id -u)" -eq 0 ]; then
  run=(mmdebstrap --mode=root)
  own_mounts=(unshare --mount --propagation private --)
  "${own_mounts[@]}" true 2>/dev/null && run=("${own_mounts[@]}" "${run[@]}")
fi

# Linux is taken with the set-up that mmdebstrap has made for apt, as a file: as a package it would bring a boot loader's tools.
fetch='set -e; cd "$LANE_FOLDER"; export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
for name in linux-image-6.12-cloud-amd64 linux-image-cloud-amd64; do
  package=$(apt-cache depends --important "$name" 2>/dev/null | sed -n "s/^ *Depends: \(linux-image-[0-9].*\)\$/\1/p" | head -n1)
  [ -z "$package" ] || { apt-get -o APT::Sandbox::User=root download -qq "$package"; exit 0; }
done
echo "the archives of this release have no linux-image-cloud-amd64" >&2; exit 1'

# The packages are only extracted: no maintainer script runs, so no privilege is needed and the tree is soon there.
LANE_FOLDER=$PWD TMPDIR=$PWD "${run[@]}" --quiet --format=tar --variant=extract --architectures=amd64 \
  --include="$packages" --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io \
  --aptopt='APT::Install-Recommends "false"' "${way[@]}" \
  --setup-hook='for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done' \
  --extract-hook="$fetch" "$suite" root.tar "${sources[@]}"

mkdir root linux
tar --extract --no-same-owner --file root.tar --directory root --exclude='./dev/*' --exclude='./var/cache/*' --exclude='./var/lib/apt/*'
rm root.tar
dpkg-deb --extract linux-image-*.deb linux
cp linux/boot/vmlinuz-* vmlinuz
release=$(basename linux/boot/vmlinuz-*)
echo "${release#vmlinuz-}" > release

# What maintainer scripts would have made.
[ -e root/bin/sh ] || ln -s bash root/bin/sh
[ -e root/usr/bin/awk ] || ln -s mawk root/usr/bin/awk
mkdir -p root/lane root/scratch root/root root/tmp
chmod 1777 root/tmp
printf '%s\n' root:x:0:0:root:/root:/bin/bash tester:x:1000:1000:tester:/scratch/home:/bin/bash > root/etc/passwd
printf '%s\n' root:x:0: tester:x:1000: kvm:x:100:tester > root/etc/group
printf '%s\n' 'passwd: files' 'group: files' 'hosts: files' > root/etc/nsswitch.conf
echo outer > root/etc/hostname
echo '127.0.0.1 localhost outer' > root/etc/hosts
mkfs.erofs --quiet --all-root root.erofs root

# The initramfs: busybox, the init, and the modules in an order in which each one finds what it depends on.
mkdir -p initrd/bin initrd/dev initrd/proc initrd/sys initrd/lower initrd/upper initrd/root initrd/modules
busybox=root/bin/busybox
cp "$busybox" initrd/bin/busybox
cp "$init" initrd/init
chmod 755 initrd/init
number=10
add() {
  local name=${1//-/_} file depends dependency
  ls initrd/modules/*-"$name".ko >/dev/null 2>&1 && return 0
  # Missing: built in, or this Linux has none (`ccp`); what is really needed is missed by the init.
  file=$(find linux/lib/modules -name "${name//_/[-_]}.ko*" | head -n1)
  [ -n "$file" ] || return 0
  case $file in
    *.xz) "$busybox" xzcat "$file" > "$name.ko" ;;
    *.ko) cp "$file" "$name.ko" ;;
    *) echo "$file: a compression that this script does not know" >&2; return 1 ;;
  esac
  depends=$(tr '\0' '\n' < "$name.ko" | sed -n 's/^depends=//p' | head -n1 | tr ',' ' ')
  for dependency in $depends; do add "$dependency"; done
  mv "$name.ko" "initrd/modules/$number-$name.ko"
  number=$((number + 1))
}
for module in virtio_pci virtio_blk virtio_console erofs ext4 overlay ccp irqbypass kvm kvm_amd; do add "$module"; done
busybox=$PWD/$busybox
(cd initrd && find . | sort | "$busybox" cpio -o -H newc 2>/dev/null) > initrd.cpio
mv initrd.cpio initrd.img
