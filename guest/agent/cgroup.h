/* The workload's cgroup (v2): one sub-group per process that the host started, freezer, limits, accounting. */
#ifndef MAYFLY_CGROUP_H
#define MAYFLY_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* `frozen` is set as soon as a freeze is asked for, so that nothing is started into it whether it succeeds or not. */
struct cgroup_state {
    bool frozen, identity_pending;
};
extern struct cgroup_state cgroup_state;

struct cgroup_usage {
    uint64_t memory_bytes, cpu_us;
    uint32_t pids;
};

/* Makes the groups. Returns 0, or -errno with *what naming the file. */
int cgroup_init(const char **what);

/* A sub-group without processes, or -errno; `hook`: one that is not frozen with the workload, and beyond its limits. To
 * be given back when its object is forgotten. */
int cgroup_acquire(bool hook);
void cgroup_return(int group);

/* Descriptor of its directory, or -1 where there are no cgroups. */
int cgroup_directory(int group);

bool cgroup_is_populated(int group);

/* Sends a signal to every process in the group but `except` (0: to all); `leader` serves where there are no cgroups.
 * SIGKILL is for all. Returns 0 or -errno. */
int cgroup_signal(int group, pid_t leader, int signal, pid_t except);

/* A cgroup namespace whose root is the workload's group, for setns(2); -1: there is none. */
int cgroup_namespace(void);

/* Asks for the workload to be frozen or thawed. Returns 0 or -errno. */
int cgroup_freeze(void);
int cgroup_thaw(void);

/* True once every process has stopped. cgroup_events_fd reports EPOLLPRI when that may have changed. */
bool cgroup_is_frozen(void);
int cgroup_events_fd(void);

/* 0 = no limit. The sub-groups show the same, for programs that look where they themselves are. Returns 0 or -errno. */
int cgroup_set_limits(uint64_t memory_bytes, uint64_t pids, uint32_t cpu_millis);

void cgroup_read_usage(struct cgroup_usage *usage);

#endif
