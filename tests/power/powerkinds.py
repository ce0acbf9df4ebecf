"""The kinds of session whose power is cut: the host and the guest have to agree on them."""

# The chroot of each, and the directory of configuration, which has a setup script of its own or not.
KINDS = {
    "overlay": ("minimal", "etc"),
    "memory": ("memory", "etc"),
    "archive": ("archive", "etc"),
    "covered": ("covered", "etc"),
    "cached": ("cached", "etc"),
    "elsewhere": ("elsewhere", "etc"),
    "scripted": ("default", "scripted"),
}
# The same for sessions of logical volumes, on a disk that has a volume group.
VOLUMES = {"lvm": ("classic", "etc"), "lvm-thin": ("thin", "etc")}
# And of an encrypted volume, which is opened for them.
STACKED = {"secret": ("secret", "etc")}
ALL = KINDS | VOLUMES | STACKED
LOST_AT_BOOT = ("memory",)
