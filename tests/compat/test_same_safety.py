"""Where schroot is unsafe, or leaves something behind, and this is not."""

from __future__ import annotations

from comparing import Batch, Case
from configurations import USUAL

FILES = {"/etc/schroot/setup.d/16own": "#!/bin/sh\n[ ! -e /run/$1 ] || . /run/$1\n"}

BATCH = Batch(
    USUAL,
    r"""
# What is kept of a session may be written by root only.
umask 002; schroot -b -c ov -n s1; find /var/lib/schroot/session /var/lib/chroot-sessions/sessions -type f -perm /022 2>/dev/null | wc -l; schroot -e -c s1  #~ session-data: output

# Links inside lead to the inside.
mkdir /run/host; ln -s /run/host/debian_chroot /srv/root/etc/debian_chroot; schroot -c dir -- true; ls /run/host            #~ links-inside: output
rm -rf /run/host /srv/root/etc/debian_chroot

# What decides what is mounted, and what is run as root, is root's alone.
chmod 666 /etc/schroot/minimal/fstab; schroot -q -c dir -- true; chmod 644 /etc/schroot/minimal/fstab                 #~ trusted-files: messages log
chown nobody /etc/schroot/minimal/copyfiles; schroot -q -c dir -- true; chown root /etc/schroot/minimal/copyfiles     #~ trusted-files: messages log
chmod 757 /etc/schroot/setup.d/16own; schroot -q -c dir -- true; chmod 755 /etc/schroot/setup.d/16own                 #~ trusted-files: messages log
chown nobody /etc/schroot/setup.d/16own; schroot -q -c dir -- true; chown root /etc/schroot/setup.d/16own             #~ trusted-files: messages log

# The host itself is no chroot to be set up.
conf '[root]\ntype=directory\ndirectory=/\nprofile=minimal\nsetup.nssdatabases=\nsetup.copyfiles=\n'; schroot -b -c root -n s1 2>/dev/null; echo $?; schroot -q -e -c s1 2>/dev/null; rm -f /etc/debian_chroot  #~ root-directory: output

# A command is looked for in PATH, not where one happens to be.
printf '#!/bin/sh\necho mine\n' >/srv/root/tmp/mine; chmod 755 /srv/root/tmp/mine; schroot -d /tmp -c plain -- mine; rm /srv/root/tmp/mine   #~ no-local-command: output messages
schroot -d / -s bin -c plain                                                                      #~ no-local-command: messages
schroot -c plain -- true "$(printf '\377')"                                                       #~ logged-bytes: log

# Who asked for a session hears of it, or there is none.
schroot -b -c ov -n s1 >/dev/full; echo $?; schroot -l --all-sessions | grep s1; schroot -q -e --all-sessions     #~ begin-output: output messages
schroot -b -c ov -n s1 >&-; echo $?; schroot -l --all-sessions | grep s1; schroot -q -e --all-sessions            #~ begin-output: output messages
schroot -b -c ov -n s1 | true; sleep 0.5; schroot -q -e --all-sessions                                      #~ begin-output: messages

# After a reboot: nothing is mounted any more.
schroot -b -c ov -n s1; reboot; schroot -e -c s1 2>/dev/null; echo $?; schroot -l --all-sessions | grep s1       #~ end-after-reboot: status output
schroot --recover-session -c s1 2>/dev/null; schroot -q -e -c s1 2>/dev/null; schroot -l --all-sessions
schroot -b -c ov -n s2; schroot -r -c s2 -- touch /kept; reboot; schroot --recover-session -c s2; schroot -r -c s2 -- ls /kept; schroot -e -c s2
schroot -b -c dir -n s2; reboot; schroot --recover-session -c s2; schroot -r -c s2 -- ls /proc/version; schroot -e -c s2
schroot -b -c tar -n s2; schroot -r -c s2 -- touch /kept; reboot; schroot --recover-session -c s2; schroot -r -c s2 -- ls /kept; schroot -e -c s2
schroot -b -c ov -n s3; reboot; schroot -q -r -c s3 -- true; echo $?; schroot --recover-session -c s3; schroot -e -c s3     #~ lost-root: messages

# By force: somebody stands inside, or a script refuses.
schroot -b -c ov -n s4; sh -c 'cd $(schroot --location -c session:s4); exec sleep 60' & sleep 3; schroot -q -e -c s4 2>/dev/null; echo $?; schroot -f -e -c s4 2>/dev/null; echo $?; kill $! 2>/dev/null; sleep 0.2; schroot -q -e --all-sessions   #~ force: output
echo exit 3 >/run/setup-stop; schroot -b -c ov -n s5; schroot -q -e -c s5 2>/dev/null; schroot -q -f -e -c s5 2>/dev/null; echo $?; rm /run/setup-stop; schroot -q -e --all-sessions  #~ force: output
echo '[ $1 != setup-stop ]' >/run/setup-stop; schroot -q -f -c ov -- true 2>/dev/null; echo $?; rm /run/setup-stop; schroot -l --all-sessions | wc -l; schroot -q -e --all-sessions  #~ force: output
schroot -f -c ov -- pwd
schroot -f -l -c ov
schroot -b -f -c ov -n s6; schroot -r -f -c s6 -- pwd; schroot -e -f -c s6

# What is done, effect by effect.
schroot --debug=notice -c plain -- true      #~ debug: messages
schroot --debug=notice -c ov -- pwd          #~ debug: messages
schroot --debug=info -c ov -- pwd            #~ debug: messages
schroot --debug=warning -c ov -- pwd
schroot --debug=critical -c ov -- pwd
schroot -l --all-sessions
""",
    FILES,
)


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


def test_nothing_left() -> None:
    assert BATCH.left == []
