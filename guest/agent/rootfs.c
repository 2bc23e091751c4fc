#include "rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "identity.h"

/*
 * The child's root is the container's before anything of the image is used, so that none of its paths and symlinks
 * leads out of it. The working directory is the agent's: *relative* paths are the agent's, absolute ones the container's.
 */
#define STAGE "run/root"
#define FLUSH_BUFFERS _IO(0x12, 97) /* BLKFLSBUF */
#define GROW_EXT4 _IOW('f', 16, uint64_t) /* EXT4_IOC_RESIZE_FS */
#define DISK_SCRATCH 1u
#define DISK_VOLUMES 2u
#define SYSTEM_FLAGS (MS_NOSUID | MS_NODEV | MS_NOEXEC)

struct mount_step {
    const char *source, *target, *type;
    unsigned long flags;
    const char *options;
};

const char *rootfs_disk(unsigned disk)
{
    static const char *const names[MAX_CONTAINER_DISKS] = {"dev/vda", "dev/vdb", "dev/vdc", "dev/vdd", "dev/vde"};
    return names[disk];
}

int rootfs_init(void)
{
    static const char *const directories[] = {"/run/root", "/run/root/lower", "/run/root/over", "/run/root/dev",
                                              "/run/root/sys"};
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
        if (mkdir(directories[i], 0755) && errno != EEXIST)
            return -errno;
    return 0;
}

void rootfs_make_directories(const char *path)
{
    static char part[MAX_PATH_BYTES + 1];
    size_t length = strlen(path);
    if (length > MAX_PATH_BYTES)
        return;
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i])
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        mkdir(part, 0755); /* whether it worked shows when the directory is used */
    }
}

/* A target that is missing is made. */
static int mount_at(const char *source, const char *target, const char *type, unsigned long flags, const char *options)
{
    if (!mount(source, target, type, flags, options))
        return 0;
    if (errno != ENOENT)
        return -errno;
    rootfs_make_directories(target);
    return mount(source, target, type, flags, options) ? -errno : 0;
}

static int mount_all(const struct mount_step *steps, size_t count)
{
    int error = 0;
    for (size_t i = 0; i < count && (!error || error == -ENODEV); i++) /* a kernel may lack message queues */
        error = mount_at(steps[i].source, steps[i].target, steps[i].type, steps[i].flags, steps[i].options);
    return error == -ENODEV ? 0 : error;
}

/* The kernel does it in its journal: interrupted at any moment, the file system is as before or larger. */
static int grow_ext4(int fd, uint64_t bytes)
{
    struct statfs found;
    if (fstatfs(fd, &found))
        return -errno;
    uint64_t blocks = bytes / (uint64_t)found.f_bsize;
    return ioctl(fd, GROW_EXT4, &blocks) ? -errno : 0;
}

/* What was read of another disk before it became this one. */
static int forget_earlier_disk(unsigned disk)
{
    int fd = open(rootfs_disk(disk), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ioctl(fd, FLUSH_BUFFERS);
    close(fd);
    return 0;
}

static int mount_disk(unsigned disk, const char *target, const char *fstype, unsigned long flags, struct rootfs *result)
{
    bool writable_ext4 = !(flags & MS_RDONLY) && !strcmp(fstype, "ext4");
    /* No thread that writes to each block group of a new file system. */
    int error = mount_at(rootfs_disk(disk), target, fstype, flags, writable_ext4 ? "noinit_itable" : NULL);
    if (error || !writable_ext4)
        return error;
    result->disk_fds[disk] = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return result->disk_fds[disk] < 0 ? -errno : 0;
}

/* Mounts the overlay over the agent's root and makes it the root. */
static int enter_root(const struct container_spec *spec, struct rootfs *result)
{
    char size[48] = "mode=0755,size=50%";
    if (spec->upper_bytes)
        snprintf(size, sizeof size, "mode=0755,size=%llu", (unsigned long long)spec->upper_bytes);
    int error = spec->flags & CONTAINER_SAME_ROOT ? 0 : forget_earlier_disk(0);
    if (!error)
        error = mount_disk(0, STAGE "/lower", spec->fstype, MS_RDONLY, result);
    if (!error && (spec->flags & CONTAINER_SCRATCH))
        error = forget_earlier_disk(DISK_SCRATCH);
    if (!error && (spec->flags & CONTAINER_SCRATCH))
        error = mount_disk(DISK_SCRATCH, STAGE "/over", "ext4", 0, result);
    else if (!error)
        error = mount_at("overlay", STAGE "/over", "tmpfs", 0, size);
    if (error)
        return error;
    for (int i = 0; i < 2; i++) /* a scratch disk may have them of its last container */
        if (mkdir(i ? STAGE "/over/work" : STAGE "/over/upper", 0755) && errno != EEXIST)
            return -errno;
    result->upper_fd = open(STAGE "/over/upper", O_PATH | O_DIRECTORY | O_CLOEXEC);
    result->lower_fd = open(STAGE "/lower", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (result->upper_fd < 0 || result->lower_fd < 0)
        return -errno;
    if (mount("overlay", "/", "overlay", 0,
              "lowerdir=" STAGE "/lower,upperdir=" STAGE "/over/upper,workdir=" STAGE "/over/work"))
        return -errno;
    return chroot("/..") ? -errno : 0; /* what is mounted over the root, where "/" is still the one below */
}

static int make_devices(void)
{
    static const struct {
        const char *path;
        unsigned major, minor;
    } nodes[] = {
        {STAGE "/dev/null", 1, 3},   {STAGE "/dev/zero", 1, 5},    {STAGE "/dev/full", 1, 7},
        {STAGE "/dev/random", 1, 8}, {STAGE "/dev/urandom", 1, 9}, {STAGE "/dev/tty", 5, 0},
    };
    static const char *const links[][2] = {
        {"pts/ptmx", STAGE "/dev/ptmx"},          {"/proc/self/fd", STAGE "/dev/fd"},
        {"/proc/self/fd/0", STAGE "/dev/stdin"},  {"/proc/self/fd/1", STAGE "/dev/stdout"},
        {"/proc/self/fd/2", STAGE "/dev/stderr"},
    };
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
        if (mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)))
            return -errno;
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]))
            return -errno;
    return 0;
}

int rootfs_prepare(struct rootfs *result)
{
    static const struct mount_step steps[] = {
        {"sysfs", STAGE "/sys", "sysfs", MS_RDONLY | SYSTEM_FLAGS, NULL},
        {"tmpfs", STAGE "/sys/firmware", "tmpfs", MS_RDONLY | SYSTEM_FLAGS, NULL},
        {"cgroup", STAGE "/sys/fs/cgroup", "cgroup2", MS_RDONLY | SYSTEM_FLAGS, NULL},
        {"tmpfs", STAGE "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=65536k"},
        {"devpts", STAGE "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
        {"shm", STAGE "/dev/shm", "tmpfs", SYSTEM_FLAGS, "mode=1777,size=65536k"},
        {"mqueue", STAGE "/dev/mqueue", "mqueue", SYSTEM_FLAGS, NULL},
    };
    int error = mount_all(steps, sizeof steps / sizeof *steps);
    if (!error)
        error = make_devices();
    if (error)
        return error;
    result->terminals_fd = open(STAGE "/dev/pts", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return result->terminals_fd < 0 ? -errno : 0;
}

static int mount_system(uint64_t shm_bytes)
{
    static const struct mount_step steps[] = {
        {STAGE "/sys", "/sys", NULL, MS_MOVE, NULL},
        {STAGE "/dev", "/dev", NULL, MS_MOVE, NULL},
    };
    char shm[32];
    int error = mount_all(steps, sizeof steps / sizeof *steps);
    if (error || !shm_bytes)
        return error;
    snprintf(shm, sizeof shm, "size=%llu", (unsigned long long)shm_bytes);
    return mount(NULL, "/dev/shm", NULL, MS_REMOUNT | SYSTEM_FLAGS, shm) ? -errno : 0;
}

/* Files of the agent's, so that they can be written anew whatever the container has made of its root. */
static int mount_files(void)
{
    for (const struct identity_file *file = identity_files; file->path; file++) {
        if (!mount(file->path + 1, file->target, NULL, MS_BIND, NULL))
            continue;
        if (errno != ENOENT)
            return -errno;
        rootfs_make_directories("/etc");
        unlink(file->target); /* a symlink to nowhere */
        if (mknod(file->target, S_IFREG | 0644, 0) || mount(file->path + 1, file->target, NULL, MS_BIND, NULL))
            return -errno;
    }
    return 0;
}

static unsigned long mount_flags(uint16_t flags)
{
    return (flags & MOUNT_READ_ONLY ? MS_RDONLY : 0) | (flags & MOUNT_NOSUID ? MS_NOSUID : 0) |
           (flags & MOUNT_NODEV ? MS_NODEV : 0) | (flags & MOUNT_NOEXEC ? MS_NOEXEC : 0);
}

static int mount_asked(const struct container_spec *spec, const struct container_mount *asked, struct rootfs *result)
{
    const char *target = asked->target;
    unsigned long flags = mount_flags(asked->flags);
    char options[64] = "";
    if (asked->kind == MOUNT_DISK) {
        unsigned disk = DISK_VOLUMES + asked->disk;
        int error = forget_earlier_disk(disk);
        if (!error)
            error = mount_disk(disk, target, asked->fstype, flags, result);
        bool grows = asked->bytes && result->disk_fds[disk] >= 0;
        return !error && grows ? grow_ext4(result->disk_fds[disk], asked->bytes) : error;
    }
    if (asked->kind == MOUNT_DIRECTORY) { /* mounted onto itself, it is no part of the mount that becomes read-only */
        if (spec->flags & CONTAINER_READ_ONLY)
            return mount_at(target, target, NULL, MS_BIND, NULL);
        rootfs_make_directories(target);
        return 0;
    }
    unsigned mode = asked->mode ? asked->mode : 01777;
    if (asked->bytes)
        snprintf(options, sizeof options, "mode=%o,size=%llu", mode, (unsigned long long)asked->bytes);
    else
        snprintf(options, sizeof options, "mode=%o,size=50%%", mode);
    return mount_at("tmpfs", target, "tmpfs", flags, options);
}

int rootfs_mount(const struct container_spec *spec, struct rootfs *result)
{
    int error = enter_root(spec, result);
    if (!error)
        error = mount_system(spec->shm_bytes);
    if (!error)
        error = mount_files();
    for (size_t i = 0; i < spec->mount_count && !error; i++)
        error = mount_asked(spec, &spec->mounts[i], result);
    if (error)
        return error;
    mkdir("/proc", 0555);
    mkdir("/tmp", 01777);
    if ((spec->flags & CONTAINER_READ_ONLY) && mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL))
        return -errno;
    result->root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return result->root_fd < 0 ? -errno : 0;
}

/* Paths of docker's; a kernel lacks some. */
int rootfs_mount_proc(void)
{
    static const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    static const char *const empty_files[] = {"/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                                              "/proc/sched_debug", "/proc/interrupts"};
    static const char *const empty_directories[] = {"/proc/acpi", "/proc/asound", "/proc/scsi"};
    if (mount("proc", "/proc", "proc", SYSTEM_FLAGS, NULL))
        return -1;
    /* What is bound of a read-only mount is one: a call less for each. */
    if (mount(NULL, "/proc", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | SYSTEM_FLAGS, NULL))
        return -1;
    for (size_t i = 0; i < sizeof read_only / sizeof *read_only; i++)
        if (mount(read_only[i], read_only[i], NULL, MS_BIND | MS_REC, NULL) && errno != ENOENT)
            return -1;
    if (mount(NULL, "/proc", NULL, MS_REMOUNT | MS_BIND | SYSTEM_FLAGS, NULL))
        return -1;
    for (size_t i = 0; i < sizeof empty_files / sizeof *empty_files; i++)
        if (mount("/dev/null", empty_files[i], NULL, MS_BIND, NULL) && errno != ENOENT)
            return -1;
    for (size_t i = 0; i < sizeof empty_directories / sizeof *empty_directories; i++)
        if (mount("tmpfs", empty_directories[i], "tmpfs", MS_RDONLY | SYSTEM_FLAGS, "size=0k") && errno != ENOENT)
            return -1;
    return 0;
}

int rootfs_mount_console(int terminal)
{
    char path[32];
    snprintf(path, sizeof path, "/dev/pts/%d", terminal);
    umount2("/dev/console", MNT_DETACH); /* of an earlier first process */
    if (mknod("/dev/console", S_IFREG | 0600, 0) && errno != EEXIST)
        return -1;
    return mount(path, "/dev/console", NULL, MS_BIND, NULL);
}
