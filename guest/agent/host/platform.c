/* A host in place of a guest: cgroups, identity and container keep their state but change nothing. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <time.h>

#include "cgroup.h"
#include "container.h"
#include "identity.h"
#include "machine.h"

struct cgroup_state cgroup_state;
static bool exists;

int cgroup_init(const char **what)
{
    *what = NULL;
    return 0;
}

int cgroup_acquire(bool hook)
{
    (void)hook;
    return 0;
}

void cgroup_return(int group) { (void)group; }

int cgroup_directory(int group)
{
    (void)group;
    return -1;
}

bool cgroup_is_populated(int group)
{
    (void)group;
    return false;
}

int cgroup_signal(int group, pid_t leader, int signal, pid_t except)
{
    (void)group;
    (void)except;
    if (leader <= 0)
        return -ESRCH;
    return kill(-leader, signal) ? -errno : 0; /* each process leads a session and a group of its own */
}

int cgroup_freeze(void)
{
    cgroup_state.frozen = true;
    return 0;
}

int cgroup_thaw(void)
{
    cgroup_state.frozen = false;
    return 0;
}

bool cgroup_is_frozen(void) { return cgroup_state.frozen; }

int cgroup_events_fd(void) { return -1; }

int cgroup_set_limits(uint64_t memory_bytes, uint64_t pids, uint32_t cpu_millis)
{
    (void)memory_bytes;
    (void)pids;
    (void)cpu_millis;
    return 0;
}

void cgroup_read_usage(struct cgroup_usage *usage) { *usage = (struct cgroup_usage){0, 0, 0}; }

int identity_apply(const struct identity *identity)
{
    (void)identity;
    return 0;
}

int identity_write_files(void) { return 0; }

void identity_prepare(void) {}

int clock_set_realtime(uint64_t realtime_ns)
{
    (void)realtime_ns;
    return 0;
}

int container_build(const struct container_spec *spec)
{
    if (exists)
        return -EALREADY;
    for (size_t i = 0; i < spec->mount_count; i++)
        if (spec->mounts[i].kind == MOUNT_DISK && !*spec->mounts[i].fstype)
            return -EINVAL;
    exists = true;
    return 0;
}

bool container_exists(void) { return exists; }

const struct container_namespaces *container_namespaces(void) { return NULL; }

int container_open_terminal(void) { return -ENOTTY; }

int container_enter_as_first(int terminal, const char *directory)
{
    (void)terminal;
    (void)directory;
    return 0;
}

bool container_has_writable_disks(void) { return true; }

int container_settle(void *flags, volatile uint64_t *result)
{
    (void)flags;
    (void)result;
    return 0;
}

void container_release(void) { exists = false; }

bool container_disks_are_free(void) { return true; }

int machine_sync(void *unused, volatile uint64_t *result)
{
    (void)unused;
    (void)result;
    return 0;
}

int machine_trim(void *max_bytes, volatile uint64_t *zeroed_bytes)
{
    (void)max_bytes;
    *zeroed_bytes = 0;
    return 0;
}

void machine_stats(struct writer *result)
{
    struct timespec uptime;
    clock_gettime(CLOCK_MONOTONIC, &uptime);
    for (int i = 0; i < 5; i++)
        put_u64(result, 0);
    put_u64(result, 0); /* workloadPids and load1 */
    put_u64(result, (uint64_t)uptime.tv_sec * 1000000000u + (uint64_t)uptime.tv_nsec);
    put_u64(result, 0);
}
