#!/bin/sh
# The main job, step by step, on the built-in chroot "host": a copy of the running system whose changes are thrown away.
set -eu

[ "$(id -u)" = 0 ] || { echo "the demo mounts things: run it as root" >&2; exit 1; }
# All of it happens in a mount namespace of its own, with directories of its own.
if [ -z "${DEMO_DIR:-}" ]; then
    DEMO_DIR=$(mktemp -d /tmp/sessions-demo.XXXXXX)
    export DEMO_DIR
    trap 'rm -rf --one-file-system "$DEMO_DIR"' EXIT
    mkdir "$DEMO_DIR/etc"
    unshare --mount --propagation private "$0"
    exit
fi

step=0
tell() { step=$((step + 1)); printf '\n%s. %s\n' "$step" "$*"; }
show() { printf '   $ sessions %s\n' "$*"; }
sessions() {
    command sessions --config-dir "$DEMO_DIR/etc" --state-dir "$DEMO_DIR/state" --runtime-dir "$DEMO_DIR/run" "$@"
}
indent() { sed 's/^/   /'; }
fail() { echo "demo: $*" >&2; exit 1; }

mounts_before=$(wc -l </proc/self/mountinfo)

tell "The chroots there are. Nothing is configured, so there is one: the running system itself."
show chroots
sessions chroots | indent

tell "What beginning a session of it would do. Nothing is touched yet."
show plan host
sessions plan host | indent

tell "Begin a session. It stays open until it is ended, and prints its name."
show begin host --name demo
sessions begin host --name demo | indent

tell "Change files inside: write one and remove another."
show "exec demo -d / -- sh -c 'echo changed >/etc/demo-file; rm /etc/passwd; ls -l /etc/demo-file /etc/passwd'"
sessions exec demo -d / -- sh -c 'echo changed >/etc/demo-file; rm /etc/passwd; ls -l /etc/demo-file /etc/passwd' 2>&1 | indent || :

tell "On the host nothing has happened: the file is not there, and /etc/passwd still is."
[ ! -e /etc/demo-file ] || fail "the session has changed the host"
[ -s /etc/passwd ] || fail "the session has changed the host"
printf '   $ ls -l /etc/demo-file /etc/passwd\n'
ls -l /etc/demo-file /etc/passwd 2>&1 | indent || :

tell "The session as it is listed, and as a program would read it."
show list
sessions list | indent
show list --json
sessions list --json | indent

tell "Leave a process behind inside, and end the session: the process goes with it."
show "exec demo -d / -- sh -c 'sleep 1000 &'"
sessions exec demo -d / -- sh -c 'sleep 1000 >/dev/null 2>&1 & echo "   left behind: process $!"'
show end demo
sessions end demo

tell "Nothing is left: no session, no mount, no process, no file, but for the log of what has happened."
show list
sessions list | indent
[ "$(wc -l </proc/self/mountinfo)" = "$mounts_before" ] || fail "mounts are left"
left=$(find "$DEMO_DIR/state" "$DEMO_DIR/run" ! -type d ! -path "$DEMO_DIR/run/events/log")
[ -z "$left" ] || fail "files are left: $left"
show events
sessions events | indent
echo "   mounts before: $mounts_before, and now: $(wc -l </proc/self/mountinfo); files of the session: none"

tell "For a single command, a session of its own: begun, used and ended in one go. Its exit status comes through."
show "run host -d / -- sh -c 'echo hello from \$(cat /etc/debian_chroot); exit 7'"
status=0
sessions run host -d / -- sh -c 'echo "   hello from the chroot called $(cat /etc/debian_chroot)"; exit 7' || status=$?
[ "$status" = 7 ] || fail "the exit status is $status, not 7"
echo "   exit status: $status"

printf '\nThat is the main job. To define chroots of your own: man sessions.toml, and etc/sessions.toml for an example.\n'
