/* Children that share the agent's memory until they exec or end, while the agent stands still, as after vfork(2). */
#ifndef MAYFLY_CLONE_H
#define MAYFLY_CLONE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct clone_request {
    /* Never returns, and makes system calls only: no locks, no handlers, nothing that the agent would find changed. */
    void (*entry)(void);
    uint64_t flags;  /* CLONE_NEW*, CLONE_FILES */
    int cgroup_fd;   /* directory of the cgroup it starts in, or -1: the caller's */
    bool grandchild; /* made by such a child: it has a stack of its own */
    bool must_join;  /* set if the kernel could not start it in the cgroup: it has to move there itself */
};

/* Returns the pid once the child has exec'd or ended, or -errno. */
pid_t clone_child(struct clone_request *request);

/* Moves the calling child into the cgroup. Returns 0 or -1 with errno. */
int clone_join_cgroup(int cgroup_fd);

#endif
