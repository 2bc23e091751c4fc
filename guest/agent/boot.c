#include "boot.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "modules.h"
#include "text.h"

#define OPEN_FILES_SOFT 1024
#define OPEN_FILES_HARD 524288

struct boot_mount {
    const char *source, *target, *type;
    unsigned long flags;
    const char *options;
};

_Noreturn void boot_failed(const char *what, int error)
{
    char line[512];
    int length = snprintf(line, sizeof line, "mayfly-agent: cannot %s: %s\n", what, strerror(error < 0 ? -error : error));
    if (write(2, line, (size_t)length) != length)
        text_write("/dev/kmsg", line);
    reboot(RB_AUTOBOOT); /* nothing of the workload runs yet, so there is nothing to save */
    for (;;)
        pause();
}

static void open_console(void)
{
    int fd = open("/dev/console", O_RDWR | O_NOCTTY);
    if (fd < 0)
        fd = open("/dev/null", O_RDWR); /* a machine without any console */
    for (int i = 0; i < 3; i++)
        if (fd >= 0 && fd != i)
            dup2(fd, i);
    if (fd > 2)
        close(fd);
}

static void mount_system(void)
{
    static const struct boot_mount mounts[] = {
        {"devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL},
        {"proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
        {"sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
        {"cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
        {"devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=0666,mode=0620,gid=5"},
        {"tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"},
        {"tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"},
        {"tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"},
    };
    for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
        const struct boot_mount *m = &mounts[i];
        char what[64];
        if ((!mkdir(m->target, 0755) || errno == EEXIST) &&
            (!mount(m->source, m->target, m->type, m->flags, m->options) || errno == EBUSY)) { /* mounted by the kernel */
            if (i == 0)
                open_console();
            continue;
        }
        snprintf(what, sizeof what, "mount %s on %s", m->type, m->target);
        boot_failed(what, errno);
    }
}

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return; /* a kernel without networking */
    if (!ioctl(fd, SIOCGIFFLAGS, &request)) {
        request.ifr_flags |= IFF_UP;
        if (ioctl(fd, SIOCSIFFLAGS, &request))
            dprintf(2, "mayfly-agent: cannot raise the loopback device: %s\n", strerror(errno));
    }
    close(fd);
}

static void set_limits(void)
{
    struct rlimit files = {OPEN_FILES_SOFT, OPEN_FILES_HARD}, processes = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_NOFILE, &files);
    setrlimit(RLIMIT_NPROC, &processes); /* the workload's cgroup is what counts */
}

/*
 * A connection's bytes wake the agent and the workload in turn. As a batch task the agent does not interrupt whoever wakes it, and with
 * the greatest weight it is not interrupted by whom it wakes: each does all that it has before the other has its turn. A switch between
 * them is dear where it empties the TLB, as under emulation. Children begin as if nothing of this were so (spawn.c).
 */
static void take_turns(void)
{
    static const struct sched_param none;
    if (syscall(SYS_sched_setscheduler, 0, SCHED_BATCH | SCHED_RESET_ON_FORK, &none) || setpriority(PRIO_PROCESS, 0, -20))
        dprintf(2, "mayfly-agent: cannot become a batch task: %s\n", strerror(errno)); /* it is slower, no more */
}

void boot_machine(void)
{
    mount_system();
    set_limits();
    take_turns();
    /* A huge page for a process' first bytes is 2 MiB that a clone no longer shares. Not every kernel has them. */
    text_write("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
    raise_loopback();
    modules_load("/lib/modules.list");
}
