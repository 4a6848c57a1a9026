#!/bin/sh
# Install a local copy of Nsight Systems from this machine's own Debian or Ubuntu package source; no root needed.
#
#   scripts/install-nsys.sh [FOLDER]        (default: .nsys)
#
# The packages are in a component that is often not enabled (Debian: non-free, Ubuntu: multiverse). The machine's own
# sources are copied to a private folder with that component added; the system's lists and packages stay as they are.
set -eu

target=${1:-.nsys}
say() { printf '%s\n' "$*" >&2; }
die() { say "install-nsys: $*"; exit 1; }

for tool in apt-get apt-cache dpkg dpkg-query ldd; do
    command -v "$tool" >/dev/null || die "$tool not found: this script is for Debian and Ubuntu; elsewhere install Nsight Systems from NVIDIA and pass --nsys PATH"
done
[ "$(dpkg --print-architecture)" = amd64 ] || die "the distribution packages nsight-systems for amd64 only"

parent=$(dirname "$target")
mkdir -p "$parent" || die "$parent: cannot be written"
work=$(mktemp -d "$parent/.nsys-install.XXXXXX") || die "$parent: cannot be written"
work=$(cd "$work" && pwd)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# -- a private view of the machine's own sources, with the component added ------------------------------------------
mkdir -p "$work/sources" "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/root"
distribution=$(sed -n 's/^ID=//p; s/^ID_LIKE=//p' /etc/os-release | tr -d '"' | tr '\n' ' ')
case "$distribution" in
    *ubuntu*) extra='universe multiverse' ;;
    *) extra=non-free ;;
esac
source_list=$(apt-config shell file Dir::Etc::sourcelist/f | sed "s/^file='\(.*\)'$/\1/")
source_parts=$(apt-config shell folder Dir::Etc::sourceparts/d | sed "s/^folder='\(.*\)'$/\1/")
for file in "$source_list" "$source_parts"/*.list; do
    [ -r "$file" ] || continue
    sed -n "s/^\(deb[[:space:]].*[[:space:]]main\)\([[:space:]].*\)\{0,1\}$/\1\2 $extra/p" "$file" >"$work/sources/$(basename "$file" .list).list"
done
for file in "$source_parts"/*.sources; do
    [ -r "$file" ] || continue
    sed "s/^\(Components:.*[[:space:]]main\)\([[:space:]].*\)\{0,1\}$/\1\2 $extra/" "$file" >"$work/sources/$(basename "$file")"
done
[ -n "$(ls "$work/sources")" ] || die "no package source is configured in $source_list or $source_parts"

# APT::Sandbox::User: root cannot always hand its folder to the user _apt; without root it changes nothing.
apt() {
    command=$1
    shift
    "$command" -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/sources" \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root -q "$@"
}
say "reading the package lists (privately, with the component that has Nsight Systems)"
# One unreachable third-party source is no reason to stop: what counts is whether the package is known afterwards.
apt apt-get update >"$work/update.log" 2>&1 || true
candidate=$(apt apt-cache policy nsight-systems | sed -n 's/^ *Candidate: //p')
case "$candidate" in
    '' | '(none)')
        grep '^[EW]:' "$work/update.log" >&2 || true
        die "no package nsight-systems in this machine's package source (component $extra)"
        ;;
esac

say "downloading nsight-systems $candidate"
fetch() { (cd "$work/debs" && apt apt-get download "$@" >"$work/download.log" 2>&1) || { cat "$work/download.log" >&2; return 1; }; }
fetch nsight-systems nsight-systems-target libssh-4 || die "the packages could not be downloaded"
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done

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

# -- libraries that this machine lacks, from the packages that nsight-systems depends on ------------------------------
# The importer's own search path (RUNPATH $ORIGIN) makes a library beside it enough.
missing() { { ldd "$made/host-linux-x64/QdstrmImporter"; ldd "$made/target-linux-x64/nsys"; } | sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p' | sort -u; }
round=0
wanted="nsight-systems libssh-4"
while [ -n "$(missing)" ] && [ "$round" -lt 5 ]; do
    round=$((round + 1))
    # shellcheck disable=SC2086  # one word per package
    wanted=$(apt apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances $wanted |
        sed -n 's/^ *|\{0,1\}Depends: \(lib[a-z0-9.+-]*\).*/\1/p' | sort -u | while read -r package; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -q '^installed' || printf '%s ' "$package"
    done)
    [ -n "$wanted" ] || break
    say "missing here: $(missing | tr '\n' ' ')- taking it from the packages that nsight-systems depends on"
    # shellcheck disable=SC2086
    fetch $wanted || break
    for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
    for name in $(missing); do
        found=$(find "$work/root" -name "$name" | head -n 1)
        [ -z "$found" ] || cp -L "$found" "$made/host-linux-x64/$name"
    done
done
[ -z "$(missing)" ] || say "install-nsys: still missing, so reports cannot be imported: $(missing | tr '\n' ' ')"

"$made/target-linux-x64/nsys" --version >/dev/null || die "the installed nsys does not start"
if [ -e "$target" ]; then mv "$target" "$work/previous"; fi
mv "$made" "$target"
say "$("$target/target-linux-x64/nsys" --version) is in $target (NVIDIA's licence: see $target/copyright)"
printf '%s\n' "$target/target-linux-x64/nsys"
