# Sourced by quickstart and test: installing what is missing on a Debian family host.

# What running and preparing need.
RUN_PACKAGES=(qemu-system-x86 mmdebstrap erofs-utils python3-pip gcc libc6-dev ca-certificates)
# What the tests need beside it.
TEST_PACKAGES=(python3-venv git nodejs)

install_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}. Building templates needs a Debian family host; elsewhere import one: vmrepl templates import FILE" >&2
    exit 1
  fi
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "missing: ${missing[*]}. As root, run: apt-get install ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  echo "installing: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need_cargo() {
  local found
  found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || true
  if [ -z "$found" ] || [ "$(printf '%s\n' 1.95 "$found" | sort -V | head -n1)" != 1.95 ]; then
    echo "cargo 1.95 or later is needed, found: ${found:-none}" >&2
    echo "install Rust with rustup (from rustup.rs; Debian 13 has it as a package), then: rustup default stable" >&2
    exit 1
  fi
  # The guest's agent is smallest with musl; without it the build links the host's C library statically.
  if command -v rustup >/dev/null && ! rustup target list --installed | grep -q x86_64-unknown-linux-musl; then
    rustup target add x86_64-unknown-linux-musl || true
  fi
}
