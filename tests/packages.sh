#!/bin/sh
# Install the Debian packages that the tests need and that are not here yet; who is not root is told their names.
set -eu
needed="autopkgtest btrfs-progs busybox-static bzip2 cryptsetup-bin dpkg-dev e2fsprogs erofs-utils kmod lvm2 lz4 lzop man-db
mandoc mdadm mmdebstrap netbase piuparts sbuild schroot shellcheck squashfs-tools strace systemd thin-provisioning-tools
user-mode-linux xfsprogs xz-utils zstd"
missing=
for package in $needed; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "the tests need these packages: as root, apt-get install$missing" >&2
    exit 1
fi
echo "installing for the tests:$missing"
apt-get -qq update
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
