#!/usr/bin/env bash
# Run a command in QEMU with two V4L2 cameras, the kernel's virtual ones (vivid), and a v4l2loopback device.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: tools/camera_vm.sh COMMAND [ARGUMENT...]

  tools/camera_vm.sh .venv/bin/python -m pytest -m camera tests/capture/test_v4l2.py
  tools/camera_vm.sh .venv/bin/rtfuse probe

Boots a stock Debian kernel over this machine's own file system (read only, /tmp is fresh) and runs COMMAND there in
the current folder, as root. Both cameras offer every pixel format; RTFUSE_TEST_CAMERAS names them, thermal first.
RTFUSE_TEST_LOOPBACK names a v4l2loopback device, if the module could be built (gcc, make).
Files that COMMAND writes to $CAMERA_VM_OUT are afterwards in the folder that this script prints last.
Exit status: COMMAND's own; 125 if the machine could not be set up or booted; 124 if it took too long.

  CAMERA_VM_CACHE      kernel, virtme-ng and results (default: ${XDG_CACHE_HOME:-$HOME/.cache}/rtfuse-camera-vm)
  CAMERA_VM_TIMEOUT_S  the longest that boot and COMMAND may take together (default: 1800)
  CAMERA_VM_MEMORY     memory of the machine (default: 4G)
  CAMERA_VM_KVM        set to 1 to use /dev/kvm (default: emulate, which works everywhere)

The first run needs Debian on x86-64, root, and the network: it installs qemu-system-x86, kmod and busybox, unpacks
linux-image-amd64 into the cache, copies its modules to /lib/modules, and builds v4l2loopback from Debian's source. The boot
takes half a minute. Timings in the machine have no meaning.
USAGE
}

say() { echo "camera_vm: $*" >&2; }
die() { say "$*"; exit 125; }

[ $# -gt 0 ] || { usage >&2; exit 125; }
case $1 in -h | --help) usage; exit 0 ;; esac

cache=${CAMERA_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rtfuse-camera-vm}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

as_root() { [ "$(id -u)" = 0 ] || die "$1 needs root once; run this script as root, or do it by hand (see --help)"; }

install_packages() {
  command -v qemu-system-x86_64 >/dev/null && command -v depmod >/dev/null && command -v busybox >/dev/null && return
  command -v apt-get >/dev/null || die "install qemu-system-x86_64, depmod and a static busybox (this is not Debian)"
  as_root "installing qemu-system-x86, kmod and busybox-static"
  say "installing qemu-system-x86, kmod and busybox-static"
  apt-get update -qq >"$cache/apt.log" 2>&1 || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends qemu-system-x86 kmod busybox-static \
    >>"$cache/apt.log" 2>&1 || die "apt-get install failed: see $cache/apt.log"
}

install_virtme() {
  [ -x "$cache/venv/bin/virtme-run" ] && return
  say "installing virtme-ng"
  { python3 -m venv "$cache/venv" && "$cache/venv/bin/pip" install --quiet virtme-ng; } >"$cache/pip.log" 2>&1 \
    || die "virtme-ng could not be installed: see $cache/pip.log"
}

unpack_kernel() {
  compgen -G "$cache/kernel/boot/vmlinuz-*" >/dev/null && return
  command -v apt-get >/dev/null || die "no kernel in $cache/kernel and this is not Debian"
  local package
  package=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
  [ -n "$package" ] || die "apt knows no linux-image-amd64: run apt-get update"
  say "fetching $package"
  mkdir -p "$cache/download"
  (cd "$cache/download" && apt-get download "$package") >>"$cache/apt.log" 2>&1 \
    || die "$package could not be fetched: see $cache/apt.log"
  rm -rf "$cache/kernel.part"
  dpkg -x "$cache/download/$package"_*.deb "$cache/kernel.part"
  mv "$cache/kernel.part" "$cache/kernel"
  rm -rf "$cache/download"
}

install_modules() {
  [ -e "/lib/modules/$version/modules.dep" ] && return
  as_root "copying kernel modules to /lib/modules/$version"
  say "copying modules to /lib/modules/$version"
  mkdir -p /lib/modules
  cp -a "$cache/kernel/lib/modules/$version" /lib/modules/
  depmod "$version"
}

build_loopback() {  # $loopback is the module for this kernel; it is left out where it cannot be built
  loopback="$cache/v4l2loopback-$version.ko"
  [ -e "$loopback" ] && return
  command -v gcc >/dev/null && command -v make >/dev/null || { say "no gcc or make: no v4l2loopback"; return; }
  say "building v4l2loopback"
  local build="$cache/loopback.part" source
  rm -rf "$build" && mkdir -p "$build"
  (
    cd "$build"
    apt-get download v4l2loopback-dkms "linux-headers-$version" "linux-headers-${version%-amd64}-common" \
      "linux-kbuild-${version%%.*}.$(cut -d. -f2 <<<"$version")"
    for package in *.deb; do dpkg -x "$package" root; done
    sed -i "s#/usr/src#$build/root/usr/src#g" "root/usr/src/linux-headers-$version/Makefile"
    source=$(echo "$build"/root/usr/src/v4l2loopback-*)
    make -s -C "root/usr/src/linux-headers-$version" M="$source" modules
    mv "$source/v4l2loopback.ko" "$loopback"
  ) >"$cache/loopback.log" 2>&1 || say "v4l2loopback could not be built: see $cache/loopback.log"
  rm -rf "$build"
}

install_packages
install_virtme
unpack_kernel
image=$(compgen -G "$cache/kernel/boot/vmlinuz-*" | sort -V | tail -1)
version=${image##*/vmlinuz-}
install_modules
build_loopback

# The command and its environment travel as a file, so that no quoting can go wrong; so do its output and exit status.
find "$cache" -maxdepth 1 -name 'run.*' -mtime +0 -exec rm -rf {} +
run=$(mktemp -d "$cache/run.XXXXXX")
mkdir "$run/out"
touch "$run/log"
{
  echo "export PATH=$(printf %q "$PATH") HOME=/tmp PYTHONDONTWRITEBYTECODE=1 TERM=dumb"
  echo "export CAMERA_VM_OUT=$(printf %q "$run/out") RTFUSE_TEST_CAMERAS=/dev/video0,/dev/video1"
  echo "cd $(printf %q "$PWD") || exit 125"
  echo "modprobe vivid n_devs=2 node_types=0x1,0x1 vid_cap_nr=0,1 num_inputs=1,1 input_types=0x0,0x0 || exit 125"
  if [ -e "$loopback" ]; then
    echo "modprobe videodev && insmod $(printf %q "$loopback") video_nr=9 exclusive_caps=1 card_label=rtfuse || exit 125"
    echo "export RTFUSE_TEST_LOOPBACK=/dev/video9"
  fi
  echo "if command -v udevadm >/dev/null; then udevadm settle 2>/dev/null; fi"
  printf '%q ' "$@"
  echo
} >"$run/command.sh"
cat >"$run/boot.sh" <<BOOT
bash $(printf %q "$run/command.sh") >$(printf %q "$run/log") 2>&1 </dev/null
echo \$? >$(printf %q "$run/status.part")
mv $(printf %q "$run/status.part") $(printf %q "$run/status")
sync
BOOT

accel=(--disable-kvm)
cpu=max
if [ -n "${CAMERA_VM_KVM:-}" ]; then accel=() cpu=host; fi
limit_s=${CAMERA_VM_TIMEOUT_S:-1800}
say "booting Linux $version with vivid"
timeout --kill-after=10 "$limit_s" "$cache/venv/bin/virtme-run" "${accel[@]}" --kimg "$image" --mods=auto --root / \
  --rwdir="$run" --memory "${CAMERA_VM_MEMORY:-4G}" --cpus 2 --script-sh "bash $run/boot.sh" \
  --qemu-opts -cpu "$cpu" </dev/null >"$run/console" 2>&1 &
machine=$!
trap 'kill "$machine" 2>/dev/null || true' EXIT
tail --pid="$machine" -n +1 -f "$run/log" 2>/dev/null || true
vm_status=0
wait "$machine" || vm_status=$?
trap - EXIT

if [ ! -s "$run/status" ]; then
  [ "$vm_status" = 124 ] && { say "stopped after $limit_s s; see $run"; exit 124; }
  tail -20 "$run/console" >&2
  die "the machine ended (status $vm_status) before the command did; its console is in $run/console"
fi
say "exit status $(cat "$run/status"); log and results: $run/log, $run/out"
exit "$(cat "$run/status")"
