#!/usr/bin/env bash
# Make an aarch64 Debian userland whose Python runs here, emulated, with NumPy and LiteRT:
#
#     tests/arm64/setup.sh FOLDER
#     EDGEHEADS_ARM64=FOLDER pytest -m arm64
#
# FOLDER/python-cortex-a72 and -a76 then start it. Needs root, and Debian's qemu-user-static and debootstrap. The
# packages are unpacked, not configured, and QEMU is called by its name: neither binfmt_misc nor
# chroot is needed, and the same command works behind SSH. What it takes is no latency of anything.
set -euo pipefail

suite=bookworm python=3.11
[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
for program in qemu-aarch64-static debootstrap dpkg-deb python3; do
  command -v "$program" >/dev/null || {
    echo "$0: $program is missing; run: apt-get install qemu-user-static debootstrap" >&2; exit 3; }
done

if [ ! -x "$folder/root/usr/bin/python$python" ]; then
  rm -rf "$folder/root"
  debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,libstdc++6 \
    "$suite" "$folder/root"
  for package in "$folder"/root/var/cache/apt/archives/*.deb; do
    dpkg-deb -x "$package" "$folder/root"
    rm "$package"
  done
fi

# pip runs natively and picks the wheels of the other architecture.
[ -d "$folder/site" ] || {
  python3 -m pip install --quiet --target "$folder/site.new" --only-binary=:all: \
    --python-version "$python" --implementation cp \
    --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 \
    --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_35_aarch64 numpy ai-edge-litert
  mv "$folder/site.new" "$folder/site"
}

# QEMU looks for every file under root first. Without this one LiteRT reads the x86 processor's,
# and crashes.
mkdir -p "$folder/root/proc"
for core in 0 1; do
  cat <<CPUINFO
processor	: $core
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3

CPUINFO
done >"$folder/root/proc/cpuinfo"

# The processors of the Raspberry Pi 4 and 5: without and with 8-bit dot products.
for cpu in cortex-a72 cortex-a76; do
  cat >"$folder/python-$cpu" <<SCRIPT
#!/bin/sh
PYTHONPATH='$folder/site' exec qemu-aarch64-static -cpu $cpu -L '$folder/root' \\
  '$folder/root/usr/bin/python$python' "\$@"
SCRIPT
  chmod +x "$folder/python-$cpu"
  "$folder/python-$cpu" -c "
import platform, numpy, ai_edge_litert.interpreter
from importlib import metadata
print('$cpu', platform.machine(), 'Python', platform.python_version(), 'numpy', numpy.__version__,
      'ai-edge-litert', metadata.version('ai-edge-litert'))"
done
