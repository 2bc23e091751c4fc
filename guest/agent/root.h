/* The root of the workload's processes and files: the image's disk under an overlay, in a mount namespace of its own. */
#ifndef MAYFLY_ROOT_H
#define MAYFLY_ROOT_H

#include <stdint.h>

/* Mounts /dev/vda read-only with a tmpfs over it and makes that the root from now on. upper_bytes 0: half of memory.
 * Returns 0, -EALREADY, -EINVAL for another fstype, or -errno of the step that failed, with nothing left mounted. */
int root_mount(const char *fstype, uint64_t upper_bytes);

/* The namespace processes are started in, or -1 for the agent's own. */
int root_namespace_fd(void);

/* A new terminal of the processes' /dev/pts: its master, non-blocking, or -errno. */
int root_open_terminal(void);

#endif
