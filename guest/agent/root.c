#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "files.h"

#define DISK "/dev/vda"
#define STAGE "/run/root" /* a tmpfs of the agent's own; only mount points are made in it */
#define FLUSH_BUFFERS _IO(0x12, 97) /* BLKFLSBUF */

static int namespace_fd = -1;

struct mount_step {
    const char *source, *target, *type;
    unsigned long flags;
    const char *options;
};

struct device_node {
    const char *path;
    unsigned major, minor;
};

int root_namespace_fd(void) { return namespace_fd; }

int root_open_terminal(void) { return files_open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK, 0); }

static int mount_all(const struct mount_step *steps, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (mkdir(steps[i].target, 0755) && errno != EEXIST)
            return -errno;
        if (mount(steps[i].source, steps[i].target, steps[i].type, steps[i].flags, steps[i].options))
            return -errno;
    }
    return 0;
}

static int mount_overlay(const char *fstype, uint64_t upper_bytes)
{
    char size[48] = "mode=0755,size=50%";
    if (upper_bytes)
        snprintf(size, sizeof size, "mode=0755,size=%llu", (unsigned long long)upper_bytes);
    const struct mount_step below[] = {
        {DISK, STAGE "/lower", fstype, MS_RDONLY, NULL},
        {"overlay", STAGE "/over", "tmpfs", 0, size},
    };
    static const struct mount_step overlay = {
        "overlay", STAGE "/new", "overlay", 0,
        "lowerdir=" STAGE "/lower,upperdir=" STAGE "/over/upper,workdir=" STAGE "/over/work"};
    int disk = open(DISK, O_RDONLY | O_CLOEXEC);
    if (disk < 0)
        return -errno;
    ioctl(disk, FLUSH_BUFFERS); /* what was read of a placeholder before it became this disk */
    close(disk);
    if (mkdir(STAGE, 0755) && errno != EEXIST)
        return -errno;
    int error = mount_all(below, sizeof below / sizeof *below);
    if (!error && (mkdir(STAGE "/over/upper", 0755) || mkdir(STAGE "/over/work", 0755)))
        error = -errno;
    return error ? error : mount_all(&overlay, 1);
}

static int make_devices(void)
{
    static const struct device_node nodes[] = {
        {"dev/null", 1, 3},    {"dev/zero", 1, 5}, {"dev/full", 1, 7},
        {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0},
    };
    static const char *const links[][2] = {
        {"pts/ptmx", "dev/ptmx"},           {"/proc/self/fd", "dev/fd"},         {"/proc/self/fd/0", "dev/stdin"},
        {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"},
    };
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
        if (mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)))
            return -errno;
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]))
            return -errno;
    return 0;
}

/* With the new root as the working directory: what a program expects to find mounted. */
static int mount_interior(void)
{
    static const struct mount_step first[] = {
        {"proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
        {"sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
        {NULL, "sys", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
        {"tmpfs", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=65536k"},
        {"devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
        {"tmpfs", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"},
    };
    int error = mount_all(first, sizeof first / sizeof *first);
    if (!error)
        error = make_devices();
    if (!error && mkdir("tmp", 01777) && errno != EEXIST)
        error = -errno;
    return error;
}

/* In the namespace to be: mounts everything and moves it over the root. Sets *root_fd. */
static int build_root(const char *fstype, uint64_t upper_bytes, int *root_fd)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return -errno;
    int error = mount_overlay(fstype, upper_bytes);
    if (error)
        return error;
    if (chdir(STAGE "/new"))
        return -errno;
    error = mount_interior();
    if (error)
        return error;
    /* An initramfs cannot be pivoted away from; moved over "/", the new root is the namespace's and no mere chroot. */
    if (mount(".", "/", NULL, MS_MOVE, NULL) || chroot("."))
        return -errno;
    *root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return *root_fd < 0 ? -errno : 0;
}

int root_mount(const char *fstype, uint64_t upper_bytes)
{
    int root_fd = -1;
    if (namespace_fd >= 0)
        return -EALREADY;
    if (strcmp(fstype, "erofs") && strcmp(fstype, "ext4"))
        return -EINVAL;
    int agents = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (agents < 0)
        return -errno;
    if (unshare(CLONE_NEWNS)) {
        int error = -errno;
        close(agents);
        return error;
    }
    int error = build_root(fstype, upper_bytes, &root_fd);
    int workloads = error ? -1 : open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (!error && workloads < 0)
        error = -errno;
    if (setns(agents, CLONE_NEWNS) && !error) /* without `workloads`, this unmounts all that was mounted */
        error = -errno;
    close(agents);
    if (error) {
        if (root_fd >= 0)
            close(root_fd);
        if (workloads >= 0)
            close(workloads);
        return error;
    }
    namespace_fd = workloads;
    files_set_root(root_fd);
    return 0;
}
