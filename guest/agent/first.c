#include "first.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroup.h"
#include "container.h"
#include "protocol.h"
#include "spawn.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static pid_t running; /* 0: none */
static bool ended;    /* the host's has */
static int pid_fd = -1, init_cgroup = -1;

static void close_namespace(void)
{
    if (pid_fd >= 0)
        close(pid_fd);
    pid_fd = -1;
}

static void remember(pid_t pid)
{
    running = pid;
    ended = false;
    close_namespace();
    if (container_namespaces())
        pid_fd = (int)syscall(SYS_pidfd_open, pid, 0u); /* of one that has ended already, too: it is not reaped yet */
}

/* In a group that is never frozen: it has nothing to do but to reap. */
static int start_init(void)
{
    struct spawned spawned;
    int cgroup = cgroup_acquire(true);
    if (cgroup < 0)
        return cgroup;
    struct spawn request = {
        .flags = EXEC_FIRST | EXEC_INIT,
        .umask = 022,
        .cwd = "/",
        .cgroup_fd = cgroup_directory(cgroup),
        .namespaces = container_namespaces(),
        .pid_namespace = -1,
    };
    int error = spawn_process(&request, &spawned);
    if (error) {
        cgroup_return(cgroup);
        return error;
    }
    init_cgroup = cgroup;
    remember(spawned.pid);
    return 0;
}

int first_admit(uint32_t flags)
{
    bool wants_first = flags & EXEC_FIRST;
    if (wants_first && (!container_exists() || (flags & (EXEC_OUTSIDE | EXEC_HOOK))))
        return -EINVAL;
    if ((flags & EXEC_INIT) && !wants_first)
        return -EINVAL;
    if (!container_exists() || (flags & EXEC_OUTSIDE))
        return 0;
    if (wants_first)
        return running ? -EEXIST : 0;
    if (ended)
        return -ESRCH;
    return running || !container_namespaces() ? 0 : start_init();
}

void first_started(pid_t pid) { remember(pid); }

bool first_reaped(pid_t pid)
{
    bool is_init = pid == running && init_cgroup >= 0;
    if (pid != running)
        return false;
    running = 0;
    ended = !is_init; /* another init takes the place of the agent's own */
    close_namespace();
    if (is_init)
        cgroup_return(init_cgroup);
    init_cgroup = -1;
    return is_init;
}

int first_namespace(void) { return pid_fd; }

pid_t first_pid(void) { return running; }

void first_forget(void)
{
    ended = false;
    close_namespace();
}
