/* Starts a process of the workload. */
#ifndef MAYFLY_SPAWN_H
#define MAYFLY_SPAWN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* As prlimit64(2) takes it: soft, hard. */
struct spawn_limit {
    uint32_t resource;
    uint64_t values[2];
};

struct rlimit;
struct container_namespaces;

struct spawn {
    uint32_t flags, uid, gid, umask; /* flags: EXEC_* */
    uint16_t rows, columns;
    const char *cwd;
    char *const *argv, *const *envp; /* argv NULL, with EXEC_INIT: nothing but the init */
    const gid_t *groups;
    size_t group_count;
    const struct spawn_limit *limits;
    size_t limit_count;
    uint64_t capabilities; /* bit n: capability n stays in the bounding set */
    int cgroup_fd;         /* directory of the cgroup it starts in, or -1 */
    int pid_namespace;     /* what it is started in; -1: the agent's, or with EXEC_FIRST a new one */
    const struct container_namespaces *namespaces; /* what it joins; NULL: nothing */
};

struct spawned {
    pid_t pid;
    int input, output, error; /* the agent's ends, non-blocking; -1 if there is none. A terminal is both input and output */
};

/* Processes start with this limit of open files instead of the agent's own. NULL: with the agent's. */
void spawn_keep_file_limit(const struct rlimit *limit);

/* Returns 0 once the program runs, or -errno of the step that failed; nothing is left behind then. */
int spawn_process(const struct spawn *request, struct spawned *result);

#endif
