/* The container: a root, mounts and namespaces of its own. There is none, or one. */
#ifndef MAYFLY_CONTAINER_H
#define MAYFLY_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

struct container_mount {
    uint8_t kind, disk; /* MOUNT_* */
    uint16_t flags;
    uint32_t mode;
    uint64_t bytes;
    const char *fstype, *target;
};

struct container_spec {
    uint32_t flags; /* CONTAINER_* */
    uint64_t upper_bytes, shm_bytes;
    const char *fstype;
    size_t mount_count;
    struct container_mount mounts[MAX_CONTAINER_MOUNTS];
};

/* Mount, UTS, IPC and cgroup namespace, as descriptors for setns(2). */
#define CONTAINER_NAMESPACES 4
struct container_namespaces {
    int fds[CONTAINER_NAMESPACES];
};

/* Makes what containers are built from. Called once; returns 0 or -errno. */
int container_init(void);

/* Builds the container: files_* and what is spawned inside use it from then on. Returns 0, -EALREADY, or -errno of the
 * step that failed, with nothing left of it. */
int container_build(const struct container_spec *spec);

bool container_exists(void);

/* What processes inside join, or NULL: there is no container, or it has no namespaces (outside of a guest). */
const struct container_namespaces *container_namespaces(void);

/* A new terminal of the container's /dev/pts: its master, non-blocking, or -errno. */
int container_open_terminal(void);

/* For a child in the container's namespaces that is PID 1 of a new one: mounts /proc, and /dev/pts/TERMINAL as
 * /dev/console (-1: without); makes its directory if that is missing or hidden by a mount, as runc does. Returns 0 or -1 with errno. */
int container_enter_as_first(int terminal, const char *directory);

/* The name of the container's UTS namespace. Returns 0 or -errno. */
int container_set_hostname(const char *name);

/* Whether tearing down has to write to disks first, which takes long. */
bool container_has_writable_disks(void);

/* Work for a child, see deferred.h: writes back all disks; argument is a u32 of TEARDOWN_* flags. */
int container_settle(void *flags, volatile uint64_t *result);

/* Without processes: unmounts everything and forgets the container. */
void container_release(void);

/* Whether nothing holds the disks any more that the last container had mounted writable. */
bool container_disks_are_free(void);

#endif
