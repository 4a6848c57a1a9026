# Packages of this machine's own Debian or Ubuntu source without touching the system: sourced by the install-*.sh
# beside it, which set `program` (their own name, for messages) first. No root needed.
#
# NVIDIA's tools are in a component that is often not enabled (Debian: non-free, Ubuntu: multiverse). The machine's own
# sources are copied to a private folder with that component added; the system's lists and packages stay as they are.
# shellcheck shell=sh

say() { printf '%s\n' "$*" >&2; }
die() { say "$program: $*"; exit 1; }

# prepare TARGET: check the machine; make the folder $work beside TARGET, removed at the end; read the package lists.
prepare() {
    for tool in apt-get apt-cache dpkg dpkg-query ldd; do
        command -v "$tool" >/dev/null || die "$tool not found: this script is for Debian and Ubuntu; elsewhere install NVIDIA's tool from NVIDIA and give its path"
    done
    [ "$(dpkg --print-architecture)" = amd64 ] || die "the distribution packages NVIDIA's tools for amd64 only"
    parent=$(dirname "$1")
    mkdir -p "$parent" || die "$parent: cannot be written"
    work=$(mktemp -d "$parent/.$program.XXXXXX") || die "$parent: cannot be written"
    work=$(cd "$work" && pwd)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
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
    say "reading the package lists (privately, with the component $extra)"
    # One unreachable third-party source is no reason to stop: what counts is whether the package is known afterwards.
    apt apt-get update >"$work/update.log" 2>&1 || true
}

# APT::Sandbox::User: root cannot always hand its folder to the user _apt; without root it changes nothing.
apt() {
    command=$1
    shift
    "$command" -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/sources" \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root -q "$@"
}

# candidate PACKAGE: the version that would be taken, on standard output.
candidate() {
    version=$(apt apt-cache policy "$1" | sed -n 's/^ *Candidate: //p')
    case "$version" in
        '' | '(none)')
            grep '^[EW]:' "$work/update.log" >&2 || true
            die "no package $1 in this machine's package source (component $extra)"
            ;;
    esac
    printf '%s\n' "$version"
}

# fetch PACKAGE…: download and unpack into $work/root.
fetch() {
    (cd "$work/debs" && apt apt-get download "$@" >"$work/download.log" 2>&1) || { cat "$work/download.log" >&2; return 1; }
    for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
}

# supply PACKAGES FOLDER: put the libraries that `missing` (the caller's function) names into FOLDER, out of the packages
# that PACKAGES depend on and that this machine lacks.
supply() {
    round=0
    wanted=$1
    while [ -n "$(missing)" ] && [ "$round" -lt 5 ]; do
        round=$((round + 1))
        # shellcheck disable=SC2086  # one word per package
        wanted=$(apt apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances $wanted |
            sed -n 's/^ *|\{0,1\}Depends: \(lib[a-z0-9.+-]*\).*/\1/p' | sort -u | while read -r package; do
            dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -q '^installed' || printf '%s ' "$package"
        done)
        [ -n "$wanted" ] || break
        say "missing here: $(missing | tr '\n' ' ')- taking it from the packages that it depends on"
        # shellcheck disable=SC2086
        fetch $wanted || break
        for name in $(missing); do
            library=$(find "$work/root" -name "$name" | head -n 1)
            [ -z "$library" ] || cp -L "$library" "$2/$name"
        done
    done
    [ -z "$(missing)" ] || say "$program: still missing, so some of it will not run: $(missing | tr '\n' ' ')"
}

# unfound FILE…: shared libraries that FILEs need and the loader does not find.
unfound() { for file in "$@"; do ldd "$file"; done | sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p' | sort -u; }

# replace MADE TARGET: the finished folder gets its name, what was there before goes.
replace() {
    if [ -e "$2" ]; then mv "$2" "$work/previous"; fi
    mv "$1" "$2"
}
