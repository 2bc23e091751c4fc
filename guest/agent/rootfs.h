/*
 * The container's file systems, mounted by children in mount, UTS and IPC namespaces that begin with the agent's
 * mounts. System calls only.
 */
#ifndef MAYFLY_ROOTFS_H
#define MAYFLY_ROOTFS_H

#include "container.h"

#define MAX_CONTAINER_DISKS (2 + VOLUME_DISKS)

struct rootfs {
    int root_fd, terminals_fd;         /* the root, and its /dev/pts */
    int upper_fd, lower_fd;            /* the layers of the root: what was written, and the image */
    int disk_fds[MAX_CONTAINER_DISKS]; /* a directory of each disk that is mounted writable; -1: none */
};

/* Makes what lies on the agent's side of every root. Called once; returns 0 or -errno. */
int rootfs_init(void);

/* Name of a disk below the agent's root: 0 the root, 1 scratch, 2 to 4 volumes. */
const char *rootfs_disk(unsigned disk);

/* In new namespaces: makes what is the same in every container, /dev and /sys as the OCI runtime specification has
 * them, so that it is in the template and no clone runs the kernel's code for it. Returns 0 or -errno. */
int rootfs_prepare(struct rootfs *result);

/* In prepared namespaces: mounts the rest and makes it the caller's root. Returns 0 or -errno; what was opened is in
 * `result` all the same. */
int rootfs_mount(const struct container_spec *spec, struct rootfs *result);

/* Mounts /proc, for PID 1 of a new namespace that is in the container. Returns 0 or -1 with errno. */
int rootfs_mount_proc(void);

/* Makes a directory and those above it, as far as they are missing. System calls only. */
void rootfs_make_directories(const char *path);

/* Makes /dev/console the terminal of that number. Returns 0 or -1 with errno. */
int rootfs_mount_console(int terminal);

#endif
