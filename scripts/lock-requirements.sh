#!/usr/bin/env bash
# Write requirements/ anew: every package that an installation needs, in the version of constraints.txt, with the SHA-256 of
# each of its files, for all platforms and Pythons that pyproject.toml allows. `make lock` runs it; it needs uv.
#
# torch has a file of its own, because which of its builds fits a machine pip decides when it installs. CUDA's libraries are in
# no file: torch's own metadata, whose file is verified, names the version of each. What else torch needs stands in
# requirements/torch-needs.in, because nothing else would bring it.
set -euo pipefail
cd "$(dirname "$0")/.."

without_torch=$(mktemp)
trap 'rm -f "$without_torch"' EXIT
echo "torch ; python_version < '0'" >"$without_torch"

lock() {
    local name=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
        --custom-compile-command "make lock" --constraints constraints.txt --overrides "$without_torch" \
        pyproject.toml "$@" --output-file "requirements/$name.txt"
}

lock analysis
lock runner requirements/torch-needs.in --extra runner
lock dev requirements/torch-needs.in --all-extras

# The CPU build for Python 3.11 on x86-64 Linux, which the tests run with, is not among the files of the index.
cpu_build=6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
rm -f requirements/torch.txt # what stands in it is not read as a wish
torch=$(grep '^torch==' constraints.txt)
uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --no-deps \
    --custom-compile-command "make lock" - --output-file requirements/torch.txt <<<"$torch"
sed -i "/^torch==/a\\    --hash=sha256:$cpu_build \\\\" requirements/torch.txt
