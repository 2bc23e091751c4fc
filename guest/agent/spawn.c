#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "protocol.h"
#include "root.h"

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define CLONE3_INTO_CGROUP 0x200000000ull
#define CLOSE_RANGE_SETS_CLOEXEC 4u
#define OPEN_TERMINAL_PEER _IO('T', 0x41) /* TIOCGPTPEER */
#define TERMINAL_GROUP 5
#define CHILD_STACK_BYTES 32768

struct clone3_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

/* What the child works on. It shares the agent's memory until it execs, while the agent stands still. */
static struct {
    const struct spawn *request;
    int standard[3];
    bool join_cgroup;
    volatile int error;
} child;
static uint8_t child_stack[CHILD_STACK_BYTES] __attribute__((aligned(64)));
static int nothing_fd = -1; /* /dev/null, kept open for the next process */
static char candidate[PATH_MAX + 256];

static void exec_searching(const struct spawn *request)
{
    const char *name = request->argv[0], *path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    int error = ENOENT;
    if (strchr(name, '/')) {
        execve(name, request->argv, request->envp);
        return;
    }
    for (char *const *e = request->envp; *e; e++)
        if (!strncmp(*e, "PATH=", 5))
            path = *e + 5;
    while (*name) {
        size_t length = strcspn(path, ":");
        if (length + strlen(name) + 2 <= sizeof candidate) {
            memcpy(candidate, path, length);
            candidate[length] = '/';
            strcpy(candidate + length + (length > 0), name);
            execve(candidate, request->argv, request->envp);
            if (errno != ENOENT && errno != ENOTDIR)
                error = errno;
            if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
                break;
        }
        if (!path[length])
            break;
        path += length + 1;
    }
    errno = error;
}

static int join_cgroup(int cgroup_fd)
{
    int fd = openat(cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int result = write(fd, "0", 1) == 1 ? 0 : -1;
    close(fd);
    return result;
}

/* At exec the root user gets what is in the bounding set, and anybody else nothing. */
static int drop_capabilities(uint64_t kept)
{
    for (unsigned long capability = 0; capability < 64; capability++)
        if (!(kept >> capability & 1) && syscall(SYS_prctl, PR_CAPBSET_DROP, capability, 0ul, 0ul, 0ul))
            return errno == EINVAL ? 0 : -1; /* beyond the kernel's last one */
    return 0;
}

static int limit_resources(const struct spawn *request)
{
    for (size_t i = 0; i < request->limit_count; i++)
        if (syscall(SYS_prlimit64, 0, request->limits[i].resource, request->limits[i].values, NULL))
            return -1;
    return 0;
}

static int become_user(const struct spawn *request)
{
    if (syscall(SYS_geteuid) != 0)
        return 0; /* only outside of a guest: there is no other user to become */
    if (drop_capabilities(request->capabilities))
        return -1;
    if (syscall(SYS_setgroups, request->group_count, request->groups) ||
        syscall(SYS_setresgid, request->gid, request->gid, request->gid) ||
        syscall(SYS_setresuid, request->uid, request->uid, request->uid))
        return -1;
    return 0;
}

/* System calls only from here on: no locks, no handlers, nothing that the agent would find changed. */
static int child_main(void *unused)
{
    const struct spawn *request = child.request;
    sigset_t none;
    (void)unused;
    if (setsid() < 0)
        goto failed;
    for (int i = 0; i < 3; i++)
        if (dup2(child.standard[i], i) < 0)
            goto failed;
    if ((request->flags & EXEC_TERMINAL) && ioctl(0, TIOCSCTTY, 0))
        goto failed;
    if (child.join_cgroup && join_cgroup(request->cgroup_fd))
        goto failed;
    if (request->mount_namespace_fd >= 0 && setns(request->mount_namespace_fd, CLONE_NEWNS))
        goto failed;
    if (chdir(request->cwd[0] ? request->cwd : "/"))
        goto failed;
    umask(request->umask & 0777);
    if (limit_resources(request) || become_user(request))
        goto failed;
    syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_SETS_CLOEXEC);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    exec_searching(request);
failed:
    child.error = errno;
    _exit(127);
}

#ifdef __x86_64__
/* clone3 with a stack of the child's own: the child calls child_main and never returns here. */
static long clone3_onto_stack(struct clone3_arguments *arguments)
{
    long result;
    register int (*entry)(void *) __asm__("r8") = child_main;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "xor %%edi, %%edi\n\t"
                     "call *%%r8\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(result)
                     : "0"((long)SYS_clone3), "D"(arguments), "S"(sizeof *arguments), "r"(entry)
                     : "rcx", "r11", "memory");
    return result;
}
#else
static long clone3_onto_stack(struct clone3_arguments *arguments)
{
    (void)arguments;
    return -ENOSYS;
}
#endif

/* Like vfork: returns when the child has exec'd or ended. Straight into the cgroup if the kernel can do that. */
static pid_t start_child(const struct spawn *request)
{
    struct clone3_arguments arguments = {
        .flags = CLONE_VM | CLONE_VFORK | (request->cgroup_fd >= 0 ? CLONE3_INTO_CGROUP : 0),
        .exit_signal = SIGCHLD,
        .stack = (uint64_t)(uintptr_t)child_stack,
        .stack_size = sizeof child_stack,
        .cgroup = (uint64_t)(request->cgroup_fd >= 0 ? request->cgroup_fd : 0),
    };
    child.join_cgroup = false;
    long pid = clone3_onto_stack(&arguments);
    if (pid == -ENOSYS || pid == -EINVAL || pid == -E2BIG || pid == -EOPNOTSUPP || pid == -EPERM) {
        child.join_cgroup = request->cgroup_fd >= 0;
        pid = clone(child_main, child_stack + sizeof child_stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
        if (pid < 0)
            pid = -errno;
    }
    return (pid_t)pid;
}

static int open_terminal(const struct spawn *request, int *master, int *slave)
{
    int unlocked = 0;
    struct winsize size = {.ws_row = request->rows, .ws_col = request->columns};
    *master = root_open_terminal();
    if (*master < 0)
        return *master;
    if (ioctl(*master, TIOCSPTLCK, &unlocked) ||
        (*slave = ioctl(*master, OPEN_TERMINAL_PEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0)
        return -errno;
    if (geteuid() == 0 && (fchown(*slave, request->uid, TERMINAL_GROUP) || fchmod(*slave, 0620)))
        return -errno;
    ioctl(*master, TIOCSWINSZ, &size);
    return 0;
}

/* A pipe whose end `agent_end` is non-blocking. The other end belongs to the process' user, so that it can be reopened. */
static int open_pipe(const struct spawn *request, int agent_end, int ends[2])
{
    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    if (geteuid() == 0 && (request->uid || request->gid) && fchown(ends[!agent_end], request->uid, request->gid))
        return -errno;
    if (fcntl(ends[agent_end], F_SETFL, O_NONBLOCK))
        return -errno;
    return 0;
}

static int open_standard(const struct spawn *request, int theirs[3], int ours[3])
{
    int error, ends[2];
    if (request->flags & EXEC_TERMINAL) {
        if ((error = open_terminal(request, &ours[0], &theirs[0])))
            return error;
        theirs[1] = theirs[2] = theirs[0];
        ours[1] = ours[0];
        return 0;
    }
    for (int i = 0; i < 3; i++) {
        if (i == 0 && !(request->flags & EXEC_STDIN)) {
            if (nothing_fd < 0 && (nothing_fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
                return -errno;
            theirs[0] = nothing_fd;
            continue;
        }
        ends[0] = ends[1] = -1;
        error = open_pipe(request, i == 0, ends);
        ours[i] = ends[i == 0];
        theirs[i] = ends[i != 0];
        if (error)
            return error;
    }
    return 0;
}

static void close_all(int fds[3])
{
    for (int i = 0; i < 3; i++) {
        for (int k = i + 1; k < 3; k++)
            if (fds[k] == fds[i])
                fds[k] = -1;
        if (fds[i] >= 0 && fds[i] != nothing_fd)
            close(fds[i]);
    }
}

int spawn_process(const struct spawn *request, struct spawned *result)
{
    int theirs[3] = {-1, -1, -1}, ours[3] = {-1, -1, -1};
    int error = open_standard(request, theirs, ours);
    if (!error) {
        child.request = request;
        memcpy(child.standard, theirs, sizeof theirs);
        child.error = 0;
        result->pid = start_child(request);
        error = result->pid < 0 ? result->pid : -child.error;
        if (result->pid > 0 && error)
            while (waitpid(result->pid, NULL, 0) < 0 && errno == EINTR)
                continue;
    }
    close_all(theirs);
    if (error) {
        close_all(ours);
        return error;
    }
    result->input = ours[0];
    result->output = ours[1];
    result->error = ours[2];
    return 0;
}
