#include "container.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "clone.h"
#include "files.h"
#include "rootfs.h"

#define TRIM_FILE_SYSTEM _IOWR('X', 121, struct trim_range) /* FITRIM */

struct trim_range {
    uint64_t start, length, smallest;
};

enum { MOUNT_NAMESPACE, UTS_NAMESPACE, IPC_NAMESPACE, CGROUP_NAMESPACE };

static const struct rootfs nothing = {-1, -1, -1, -1, {-1, -1, -1, -1, -1}};
static struct rootfs rootfs;
static struct container_namespaces namespaces;
static bool exists, has_proc;
static unsigned disks_written; /* bit n: the last container had disk n mounted writable */
static int own_uts_fd = -1;
static struct {
    const struct container_spec *spec;
    volatile int error;
} child;

bool container_exists(void) { return exists; }

const struct container_namespaces *container_namespaces(void) { return exists ? &namespaces : NULL; }

int container_open_terminal(void)
{
    int fd = openat(rootfs.terminals_fd, "ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static void close_if_open(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* The last that holds the mounts unmounts them. The cgroup namespace is for the next one too. */
static void close_all(void)
{
    close_if_open(&rootfs.root_fd);
    close_if_open(&rootfs.terminals_fd);
    close_if_open(&rootfs.upper_fd);
    close_if_open(&rootfs.lower_fd);
    for (unsigned i = 0; i < MAX_CONTAINER_DISKS; i++)
        close_if_open(&rootfs.disk_fds[i]);
    for (int i = MOUNT_NAMESPACE; i < CGROUP_NAMESPACE; i++)
        close_if_open(&namespaces.fds[i]);
}

/* In a child with the agent's descriptors, in new namespaces. */
static void prepare_main(void)
{
    static const char *const names[] = {"/proc/self/ns/mnt", "/proc/self/ns/uts", "/proc/self/ns/ipc"};
    int error = setns(namespaces.fds[CGROUP_NAMESPACE], CLONE_NEWCGROUP) ? -errno : 0;
    umount2("/mnt", MNT_DETACH); /* what the host has mounted there is not to be held here when it is gone there */
    if (!error)
        error = rootfs_prepare(&rootfs);
    for (int i = MOUNT_NAMESPACE; i < CGROUP_NAMESPACE && !error; i++) {
        namespaces.fds[i] = open(names[i], O_RDONLY | O_CLOEXEC);
        error = namespaces.fds[i] < 0 ? -errno : 0;
    }
    child.error = error;
    _exit(0);
}

/* In a child with the agent's descriptors. */
static void build_main(void)
{
    char name[MAX_HOSTNAME_BYTES + 1];
    int error = 0;
    if (gethostname(name, sizeof name) || setns(namespaces.fds[MOUNT_NAMESPACE], CLONE_NEWNS) ||
        setns(namespaces.fds[UTS_NAMESPACE], CLONE_NEWUTS) || sethostname(name, strlen(name)))
        error = -errno;
    child.error = error ? error : rootfs_mount(child.spec, &rootfs);
    _exit(0);
}

/* Returns what the child has left in child.error. */
static int run_child(void (*entry)(void), uint64_t flags)
{
    struct clone_request request = {.entry = entry, .flags = CLONE_FILES | flags, .cgroup_fd = -1};
    child.error = -EIO; /* of one that is killed */
    pid_t pid = clone_child(&request);
    if (pid < 0)
        return pid;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    return child.error;
}

/* Makes the namespaces that the next container will have. */
static int prepare(void)
{
    rootfs = nothing;
    namespaces = (struct container_namespaces){{-1, -1, -1, cgroup_namespace()}};
    int error = run_child(prepare_main, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC);
    if (error)
        close_all();
    return error;
}

int container_init(void)
{
    own_uts_fd = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
    int error = own_uts_fd < 0 ? -errno : rootfs_init();
    if (!error)
        prepare(); /* where it cannot, CONTAINER tries again and says why */
    return error;
}

int container_build(const struct container_spec *spec)
{
    int error = exists ? -EALREADY : namespaces.fds[MOUNT_NAMESPACE] < 0 ? prepare() : 0;
    if (error)
        return error;
    child.spec = spec;
    error = run_child(build_main, 0);
    if (error) {
        close_all();
        prepare();
        return error;
    }
    exists = true;
    has_proc = false;
    files_set_root(rootfs.root_fd);
    rootfs.root_fd = -1;
    return 0;
}

int container_enter_as_first(int terminal, const char *directory)
{
    if (has_proc)
        umount2("/proc", MNT_DETACH); /* of an earlier first process */
    has_proc = true;
    if (rootfs_mount_proc())
        return -1;
    if (access(directory, F_OK))
        rootfs_make_directories(directory);
    return terminal < 0 ? 0 : rootfs_mount_console(terminal);
}

int container_set_hostname(const char *name)
{
    if (setns(namespaces.fds[UTS_NAMESPACE], CLONE_NEWUTS))
        return -errno;
    int error = sethostname(name, strlen(name)) ? -errno : 0;
    if (setns(own_uts_fd, CLONE_NEWUTS))
        abort(); /* or the agent would take the container's name for its own */
    return error;
}

bool container_has_writable_disks(void)
{
    for (unsigned i = 0; i < MAX_CONTAINER_DISKS; i++)
        if (rootfs.disk_fds[i] >= 0)
            return true;
    return false;
}

int container_settle(void *flags, volatile uint64_t *result)
{
    int error = 0;
    (void)result;
    for (unsigned i = 0; i < MAX_CONTAINER_DISKS; i++) {
        struct trim_range all = {.length = UINT64_MAX};
        int fd = rootfs.disk_fds[i];
        if (fd < 0)
            continue;
        if (syncfs(fd)) /* before anything is trimmed: what was removed is free only then */
            error = -errno;
        if (*(const uint32_t *)flags & TEARDOWN_TRIM)
            ioctl(fd, TRIM_FILE_SYSTEM, &all); /* a disk that discards nothing is as good */
    }
    return error;
}

void container_release(void)
{
    int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        files_set_root(fd);
    disks_written = 0;
    for (unsigned i = 0; i < MAX_CONTAINER_DISKS; i++)
        disks_written |= rootfs.disk_fds[i] >= 0 ? 1u << i : 0;
    close_all();
    exists = false;
    prepare();
}

bool container_disks_are_free(void)
{
    for (unsigned i = 0; i < MAX_CONTAINER_DISKS; i++) {
        char path[16] = "/";
        if (!(disks_written >> i & 1))
            continue;
        int fd = open(strcat(path, rootfs_disk(i)), O_RDONLY | O_EXCL | O_CLOEXEC); /* EBUSY while it is mounted */
        if (fd < 0)
            return false;
        close(fd);
    }
    disks_written = 0;
    return true;
}
