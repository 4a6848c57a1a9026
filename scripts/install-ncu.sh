#!/bin/sh
# Install a local copy of Nsight Compute from this machine's own Debian or Ubuntu package source; no root needed.
#
#   scripts/install-ncu.sh [FOLDER]        (default: .ncu)
#
# Only the command line, without its window: to list metrics, to read reports, and to profile where the driver is as old
# as the distribution's packages. FOLDER/ncu starts it.
set -eu

target=${1:-.ncu}
program=install-ncu
# shellcheck source=scripts/private-apt.sh
. "$(dirname "$0")/private-apt.sh"

prepare "$target"
version=$(candidate nsight-compute)
say "downloading nsight-compute $version"
fetch nsight-compute nsight-compute-target || die "the packages could not be downloaded"

made=$work/made
mkdir "$made"
program_file=$(find "$work/root" -type f -path '*/target/linux-desktop-*-x64/ncu' | head -n 1)
[ -n "$program_file" ] || die "the packages hold no ncu"
platform=$(basename "$(dirname "$program_file")")
# ncu finds its section files two folders above itself.
mkdir "$made/target"
cp -RL "$(dirname "$program_file")" "$made/target/$platform"
sections=$(find "$work/root" -type d -name sections -path '*nsight-compute*' | head -n 1)
[ -z "$sections" ] || cp -RL "$sections" "$made/sections"
host=$(find "$work/root" -type d -path '*/host/linux-desktop-*-x64' | head -n 1)
copyright=$(find "$work/root/usr/share/doc" -maxdepth 2 -name 'copyright*' -path '*nsight-compute*' 2>/dev/null | head -n 1)
[ -z "$copyright" ] || cp "$copyright" "$made/"

missing() { unfound "$made/target/$platform/ncu"; }
# Libraries of the window's half that the command line uses too.
for name in $(missing); do
    [ -z "$host" ] || [ ! -e "$host/$name" ] || cp -L "$host/$name" "$made/target/$platform/$name"
done
supply "nsight-compute nsight-compute-target" "$made/target/$platform"
ln -s "target/$platform/ncu" "$made/ncu"

"$made/ncu" --version >/dev/null || die "the installed ncu does not start"
replace "$made" "$target"
say "$("$target/ncu" --version | tail -n 1) is in $target (NVIDIA's licence: see $target/copyright)"
printf '%s\n' "$target/ncu"
