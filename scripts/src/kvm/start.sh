# The first process in the outer guest's real root: places what was carried in, becomes an ordinary user, runs the plan.
# `plan.sh` is written for each run: the functions `carry` and `commands` in terms of those below, and `terminal`, the
# rows and columns of the caller's terminal where there is a shell to be used.
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LC_ALL=C.UTF-8
# In QEMU's order: the result, and without a terminal stdout and stderr.
ports=(/dev/vport*p[123])
result() { echo "$1" > "${ports[0]:-/dev/null}"; }
fail() {
  echo "lane: $*" > /dev/console
  result "failed $*"
  busybox poweroff -f
}
# A file or folder of the plan's disk at the place that it has on the host, read-only.
place() {
  if [ -d "/lane/$1" ]; then mkdir -p "$2"; else mkdir -p "${2%/*}" && touch "$2"; fi
  mount --bind "/lane/$1" "$2" || fail "no place for $2"
}
# A folder of the scratch disk.
room() { mkdir -p "/scratch/rooms$1" "$1" && chown tester:tester "/scratch/rooms$1" && mount --bind "/scratch/rooms$1" "$1" || fail "no place for $1"; }
# A disk of its own, with what is written to it on the scratch disk.
disk() {
  local lower=/run/disks/$1 upper=/scratch/disks/$1
  mkdir -p "$lower" "$upper/new" "$upper/work" && made "$2"
  mount -t erofs -o ro "/dev/$1" "$lower" && chmod --reference="$lower" "$upper/new" && chown -R tester:tester "$upper" &&
    mount -t overlay -o "lowerdir=$lower,upperdir=$upper/new,workdir=$upper/work" "$1" "$2" || fail "no place for $2"
}
# Makes folders; those on the scratch disk belong to the user.
made() {
  mkdir -p "$1"
  case $1 in /scratch/*) chown tester:tester "$1" "$(dirname "$1")" ;; esac
}

mke2fs -q -t ext4 -O ^has_journal -E nodiscard,lazy_itable_init=1,root_owner=1000:1000 /dev/vdb >/dev/console 2>&1 &&
  mount -o noinit_itable,discard,noatime /dev/vdb /scratch || fail "the scratch disk does not mount"
mount -t tmpfs -o mode=755 run /run
mkdir -p /dev/pts /dev/shm /run/user/1000 /run/lock
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
ln -sf /proc/self/fd /dev/fd; ln -sf fd/0 /dev/stdin; ln -sf fd/1 /dev/stdout; ln -sf fd/2 /dev/stderr
# Machines keep their memory in the runtime folder: not in the memory of this one.
mkdir -m 700 /scratch/home /scratch/run && chown tester:tester /scratch/home /scratch/run && mount --bind /scratch/run /run/user/1000
mkdir -m 1777 /scratch/tmp && mount --bind /scratch/tmp /tmp
busybox ip link set lo up
busybox hostname outer
# The emulator keeps translated code by its address. Programs that are loaded elsewhere each time are translated
# anew each time, which took three fifths of a short run's time and happens on no real host.
echo 0 > /proc/sys/kernel/randomize_va_space
# As udev would: the group decides who may have machines.
[ ! -e /dev/kvm ] || { chown root:kvm /dev/kvm; chmod 660 /dev/kvm; }
# KVM rewrites code of the running Linux when its first machine is made and when its last one ends, and the
# emulated processors do not always notice in time: one runs into the breakpoint of a rewrite that is over, and Linux
# panics. A machine and a processor that nobody runs keep it from ever being the first or the last.
if [ -e /dev/kvm ]; then
  python3 -c '
import fcntl, os, signal
vm = fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), 0xAE01, 0)
fcntl.ioctl(vm, 0xAE60, 0)
fcntl.ioctl(vm, 0xAE41, 0)
os.write(1, b"held")
os.close(1)
signal.pause()' > /run/held &
  until [ "$(cat /run/held)" = held ] || ! kill -0 $!; do sleep 0.05; done
fi

. /lane/plan.sh
carry
ordinary=(setpriv --reuid=tester --regid=tester --init-groups --inh-caps=-all
  env -i HOME=/scratch/home USER=tester LOGNAME=tester SHELL=/bin/bash LC_ALL=C.UTF-8 "PATH=${PATH%%:/usr/sbin*}" XDG_RUNTIME_DIR=/run/user/1000)
status=0
# Runs a command as the user; the first failure decides: run FOLDER NAME=VALUE... -- COMMAND...
run() {
  local folder=$1 environment=() ended
  shift
  while [ "$1" != -- ]; do environment+=("$1"); shift; done
  shift
  [ -d "$folder" ] || made "$folder"
  (cd "$folder" || exit 125; exec "${ordinary[@]}" "${environment[@]}" "$@")
  ended=$?
  [ "$status" -ne 0 ] || status=$ended
}

if [ -n "$terminal" ]; then
  chown tester:tester /dev/hvc0
  stty rows "${terminal% *}" cols "${terminal#* }" < /dev/hvc0
  commands <> /dev/hvc0 >&0 2>&0
else
  # Through pipes, since a port can be opened only once and programs open /dev/stdout again.
  mkfifo /run/out /run/err
  chown tester:tester /run/out /run/err
  cat /run/out > "${ports[1]}" &
  out=$!
  cat /run/err > "${ports[2]}" &
  err=$!
  commands < /dev/null > /run/out 2> /run/err
  # What the commands left running may hold the pipes open for ever.
  (sleep 5; kill "$out" "$err") 2>/dev/null &
  wait "$out" "$err" 2>/dev/null
fi
[ "$status" -eq 0 ] || dmesg > /dev/console
result "ended $status"
busybox poweroff -f
