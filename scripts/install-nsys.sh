#!/bin/sh
# Install a local copy of Nsight Systems from this machine's own Debian or Ubuntu package source; no root needed.
#
#   scripts/install-nsys.sh [FOLDER]        (default: .nsys)
set -eu

target=${1:-.nsys}
program=install-nsys
# shellcheck source=scripts/private-apt.sh
. "$(dirname "$0")/private-apt.sh"

prepare "$target"
version=$(candidate nsight-systems)
say "downloading nsight-systems $version"
fetch nsight-systems nsight-systems-target libssh-4 || die "the packages could not be downloaded"

# -- both halves side by side as real folders: nsys looks for its importer beside itself ------------------------------
made=$work/made
mkdir "$made"
find_folder() { find "$work/root/usr/lib" "$work/root/opt" -type d -name "$1" 2>/dev/null | head -n 1; }
host=$(find_folder host-linux-x64)
collector=$(find_folder target-linux-x64)
[ -n "$host" ] && [ -n "$collector" ] || die "the packages hold no host-linux-x64 or target-linux-x64"
mv "$host" "$made/host-linux-x64"
mv "$collector" "$made/target-linux-x64"
copyright=$(find "$work/root/usr/share/doc/nsight-systems" -name 'copyright*' 2>/dev/null | head -n 1)
[ -z "$copyright" ] || cp "$copyright" "$made/"

# Links that pointed into the rest of the system's tree are replaced by what they meant.
libraries=$(find "$work/root" -type d -path '*/usr/lib/*-linux-gnu' | head -n 1)
find "$made" -type l | while read -r link; do
    [ -e "$link" ] && continue
    meant=$libraries/$(basename "$(readlink "$link")")
    rm "$link"
    [ ! -e "$meant" ] || cp -L "$meant" "$link"
done

# The importer's own search path (RUNPATH $ORIGIN) makes a library beside it enough.
missing() { unfound "$made/host-linux-x64/QdstrmImporter" "$made/target-linux-x64/nsys"; }
supply "nsight-systems libssh-4" "$made/host-linux-x64"

"$made/target-linux-x64/nsys" --version >/dev/null || die "the installed nsys does not start"
replace "$made" "$target"
say "$("$target/target-linux-x64/nsys" --version) is in $target (NVIDIA's licence: see $target/copyright)"
printf '%s\n' "$target/target-linux-x64/nsys"
