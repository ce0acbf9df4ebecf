"""What the files of a profile ask for, and what a session then has inside."""

from comparing import Batch, Case

CONFIGURATION = """\
[ov]
type=directory
directory=/srv/root
union-type=overlay
profile=own

[dir]
type=directory
directory=/srv/root
profile=own
"""
COPYFILES = """\
# a comment
/srv/host/plain

/srv/host/owned /etc/owned
   /srv/host/plain    /etc/other
/srv/host/plain /etc/old
/srv/host/plain /etc/link
/srv/host/link /etc/copied-link
/srv/host/same /etc/same
host/plain /etc/relative
/srv/host/plain etc/relative
#/srv/host/nosuch
"""
# What is there to copy, and what is there already.
READY = """\
mkdir -p /srv/host; cd /srv/host
echo host >plain; chmod 604 plain; touch -d @1000000000 plain
echo owned >owned; chown daemon:adm owned; chmod 2750 owned; touch -d @1100000000 owned
ln -sf plain link; echo same >same; chmod 600 same
cd /srv/root/etc; rm -rf owned other old link target copied-link same ../srv; mkdir ../srv ../srv/host
echo old >old; chown nobody old; chmod 640 old; echo target >target; ln -s /etc/target link
echo same >same; chown nobody same; chmod 644 same
"""
LOOK = "cd /etc; stat -c '%n %F %u:%g %a' owned other old link target copied-link same /srv/host/plain; cat old link target"
TIMES = "stat -c '%n %Y' /etc/owned /etc/other /srv/host/plain"
FSTAB = r"""# fs  target  type  options
/srv/host/with\040blank  /mnt/with\040blank none bind
/srv/host/file /etc/bound none rw,bind 0 0
tmpfs relative/target tmpfs size=1m,mode=700
/srv/host /mnt/tree none rbind,ro
/srv/host /mnt/slave none rbind,rslave
/srv/host /mnt/private none bind,private
proc /proc proc defaults
"""
NSS = """\
passwd
# group

services
passwd
"""
BATCH = Batch(
    CONFIGURATION,
    f"""
cp /dev/null /etc/schroot/own/fstab; cp /dev/null /etc/schroot/own/nssdatabases; sh -e /etc/schroot/own/ready
schroot -c ov -- sh -c "{LOOK}"
schroot -c ov -- sh -c "{TIMES}"
schroot -c dir -- sh -c "{LOOK}"
sh -e /etc/schroot/own/ready; schroot -b -c ov -n s; schroot --recover-session -c s; schroot -r -c s -- cat /etc/old; schroot -e -c s
echo /srv/host/nosuch >>/etc/schroot/own/copyfiles; schroot -c ov -- true        #~ step-messages: messages
echo /srv/host /etc/tree >/etc/schroot/own/copyfiles; schroot -c ov -- ls /etc/tree     #~ copied-directories: status output messages log
rm -rf /srv/root/etc/old; : >/etc/schroot/own/copyfiles

printf '%s\\n' passwd '# group' '' services passwd >/etc/schroot/own/nssdatabases
schroot -c ov -- sh -c 'wc -l </etc/passwd; grep -c ^ssh /etc/services; cat /etc/group'
schroot -c dir -- sh -c "stat -c '%n %u:%g %a' /etc/passwd"
ln /etc/hostname /srv/root/etc/hostname 2>/dev/null; rm -f /srv/root/etc/hostname
echo nosuch >/etc/schroot/own/nssdatabases; schroot -c ov -- true                #~ step-messages: messages
printf 'shadow\\ngshadow\\n' >/etc/schroot/own/nssdatabases
schroot -c ov -- sh -c "stat -c '%n %u:%g %a' /etc/shadow; wc -l </etc/shadow"                 #~ databases: output
touch /srv/root/etc/shadow; chown daemon:adm /srv/root/etc/shadow; chmod 604 /srv/root/etc/shadow
schroot -c ov -- sh -c "stat -c '%n %u:%g %a' /etc/shadow; wc -l </etc/shadow"; rm /srv/root/etc/shadow  #~ databases: output
printf passwd >/etc/schroot/own/nssdatabases; schroot -c ov -- grep -c daemon /etc/passwd
printf '/etc/hostname /etc/h' >/etc/schroot/own/copyfiles; schroot -c ov -- ls /etc/h         #~ copied-files: status output messages
printf '/etc/hostname /etc/h x\\n /etc/hostname /a/b\\n' >/etc/schroot/own/copyfiles; schroot -c ov -- ls '/etc/h x' /a  #~ copied-files: status output messages log
printf '/proc/version /etc/n\\n' >/etc/schroot/own/copyfiles; schroot -c ov -- grep -c Linux /etc/n
printf '/etc/host* /etc/n\\n' >/etc/schroot/own/copyfiles; schroot -c ov -- true              #~ step-messages: messages
: >/etc/schroot/own/copyfiles; : >/etc/schroot/own/nssdatabases

cp /etc/schroot/own/mounts /etc/schroot/own/fstab; mkdir '/srv/host/with blank' '/srv/host/with blank/x'; echo x >/srv/host/file
touch /srv/root/etc/bound; mkdir -p /srv/host/sub; mount -t tmpfs sub /srv/host/sub; touch /srv/host/sub/y
schroot -c ov -- sh -c "ls '/mnt/with blank'; cat /etc/bound; ls /mnt/tree/sub; touch /mnt/tree/new; df -P /relative/target | tail -n 1 | cut -d' ' -f1"
schroot -c ov -- sh -c "ls /mnt/private/sub /mnt/slave/sub"
schroot -b -c ov -n s; mkdir -p /srv/host/late; mount -t tmpfs late /srv/host/late; touch /srv/host/late/z
schroot -r -c s -- ls /mnt/slave/late /mnt/private/late /mnt/tree/late
schroot -e -c s; ls /srv/host/late /srv/host/sub; umount /srv/host/late
rmdir /srv/root/mnt/* 2>/dev/null; schroot -c dir -- true; schroot -c dir -- true

# One line each: what is mounted, on what, and how.
echo /srv/host /made/a/b none bind >/etc/schroot/own/fstab; schroot -c ov -- ls /made/a/b
echo srv/host /mnt none bind >/etc/schroot/own/fstab; schroot -c ov -- ls /mnt
echo host /mnt none bind >/etc/schroot/own/fstab; cd /srv; schroot -d / -c ov -- ls /mnt              #~ step-messages: messages
echo LABEL=nosuch /mnt ext4 defaults >/etc/schroot/own/fstab; schroot -c ov -- true 2>&1 | grep -o "can't find LABEL=nosuch"
echo /srv/host /mnt none bind,x-word=1,nofail,user,size=1 >/etc/schroot/own/fstab; schroot -c ov -- ls /mnt
echo /srv/host /mnt none bind,remount >/etc/schroot/own/fstab; schroot -c ov -- ls /mnt                #~ remount: status output messages log
echo /srv/host /mnt auto rw,bind,ro 0 0 more >/etc/schroot/own/fstab; schroot -c ov -- touch /mnt/x
echo /srv/host/file /new-file none bind >/etc/schroot/own/fstab; schroot -c ov -- cat /new-file       #~ mount-points: status output messages log
ln -s /nowhere /srv/root/dangling; echo /srv/host /dangling none bind >/etc/schroot/own/fstab; schroot -c ov -- ls /nowhere  #~ mount-points: status output messages log
rm /srv/root/dangling; echo /srv/host /new none bind >/etc/schroot/own/fstab; schroot -c dir -- true; ls -d /srv/root/new 2>/dev/null; rm -rf /srv/root/new  #~ mount-points: output
echo /srv/host /../mnt none bind >/etc/schroot/own/fstab; schroot -c ov -- true                       #~ mount-points: status messages log
mkdir /srv/shared; mount -t tmpfs shared /srv/shared; mount --make-shared /srv/shared; mkdir /srv/shared/sub
mount -t tmpfs sub /srv/shared/sub; echo /srv/shared /mnt none rbind,rslave >/etc/schroot/own/fstab; schroot -c ov -- true; umount /srv/shared/sub
mount -t tmpfs sub /srv/shared/sub; echo /srv/shared /mnt none rbind,rshared >/etc/schroot/own/fstab; schroot -c ov -- true; umount /srv/shared/sub  #~ shared-mounts: status messages
umount /srv/shared
""",
    {
        "/etc/schroot/own/copyfiles": COPYFILES,
        "/etc/schroot/own/mounts": FSTAB,
        "/etc/schroot/own/ready": READY,
    },
)


@BATCH.each
def test_same(case: Case) -> None:
    case.check()


def test_nothing_left() -> None:
    assert BATCH.left == []
