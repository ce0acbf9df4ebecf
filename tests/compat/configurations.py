"""The configuration that most batches share."""

USUAL = """\
[plain]
description=A plain chroot
directory=/srv/root
users=nobody
root-users=root
aliases=pp

[bad.prefix]
directory=/srv/root
command-prefix=nosuch,x

[gone]
directory=/srv/gone

[chatty]
directory=/srv/root
personality=linux32
preserve-environment=true
shell=/bin/sh
message-verbosity=verbose

[dir]
type=directory
directory=/srv/root
profile=minimal
aliases=dd,de

[ov]
type=directory
description=An overlay
directory=/srv/root
union-type=overlay
profile=minimal
aliases=ova
users=nobody,daemon
groups=sudo
root-groups=root
source-root-users=root
foo.bar=1
user-modifiable-keys=foo.bar
root-modifiable-keys=foo.baz,directory
very.long-custom-key-for-a-wide-column=a b

[pre]
type=directory
directory=/srv/root
union-type=overlay
union-overlay-directory=/srv/layers
source-clone=false
profile=minimal
setup.fstab=
command-prefix=env,X=1

[tar]
type=file
file=/srv/root.tar
location=/inner
profile=minimal
aliases=tt
"""
