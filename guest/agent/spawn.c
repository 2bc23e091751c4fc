#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clone.h"
#include "container.h"
#include "init.h"
#include "protocol.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define CLOSE_RANGE_SETS_CLOEXEC 4u
#define OPEN_TERMINAL_PEER _IO('T', 0x41)   /* TIOCGPTPEER */
#define TERMINAL_NUMBER _IOR('T', 0x30, int) /* TIOCGPTN */
#define TERMINAL_GROUP 5

/* What the child works on. It shares the agent's memory until it execs, while the agent stands still. */
static struct {
    const struct spawn *request;
    struct clone_request clone;
    int standard[3], terminal; /* terminal: its number, or -1 */
    volatile int error;
} child;
static int nothing_fd = -1; /* /dev/null, kept open for the next process */
static int program_fd = -1; /* the agent's own program */
static int own_pids_fd = -1;
static char candidate[PATH_MAX + 256];
static struct rlimit file_limit;
static bool has_file_limit;

void spawn_keep_file_limit(const struct rlimit *limit)
{
    has_file_limit = limit != NULL;
    if (limit)
        file_limit = *limit;
}

/* Looking is cheap. A try to run what is not there makes an address space first. */
static bool is_missing(const char *path)
{
    return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) && (errno == ENOENT || errno == ENOTDIR);
}

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
            if (!is_missing(candidate)) {
                execve(candidate, request->argv, request->envp);
                if (errno != ENOENT && errno != ENOTDIR)
                    error = errno;
                if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
                    break;
            }
        }
        if (!path[length])
            break;
        path += length + 1;
    }
    errno = error;
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

static int enter_namespaces(const struct spawn *request)
{
    static const int types[CONTAINER_NAMESPACES] = {CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWCGROUP};
    for (int i = 0; request->namespaces && i < CONTAINER_NAMESPACES; i++)
        if (setns(request->namespaces->fds[i], types[i]))
            return -1;
    if (!request->namespaces || !(request->flags & EXEC_FIRST))
        return 0;
    return container_enter_as_first(child.terminal, request->cwd);
}

/* Makes the child what was asked for, but for its standard descriptors. */
static int prepare(const struct spawn *request)
{
    static const struct sched_param none;
    if (syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &none)) /* the agent is a batch task; its weight is not inherited */
        return -1;
    if (child.clone.must_join && clone_join_cgroup(request->cgroup_fd))
        return -1;
    if (enter_namespaces(request) || chdir(request->cwd[0] ? request->cwd : "/"))
        return -1;
    umask(request->umask & 0777);
    if (has_file_limit && syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &file_limit, NULL))
        return -1;
    return limit_resources(request) || become_user(request) ? -1 : 0;
}

static _Noreturn void child_failed(void)
{
    child.error = errno;
    _exit(127);
}

/* A session of its own with these standard descriptors and no others. */
static int take_standard(const int fds[3], bool terminal)
{
    if (setsid() < 0)
        return -1;
    for (int i = 0; i < 3; i++)
        if (dup2(fds[i], i) < 0)
            return -1;
    if (terminal && ioctl(0, TIOCSCTTY, 0))
        return -1;
    syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_SETS_CLOEXEC);
    return 0;
}

static void program_main(void)
{
    const struct spawn *request = child.request;
    sigset_t none;
    if (take_standard(child.standard, request->flags & EXEC_TERMINAL))
        child_failed();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    exec_searching(request);
    child_failed();
}

/* The program is started first, so that why it cannot be is known; then this child becomes the init over it. */
static void init_main(const struct spawn *request)
{
    static char name[] = INIT_NAME, number[12];
    char *const argv[] = {name, request->argv ? number : NULL, NULL}, *const envp[] = {NULL};
    const int nothing[3] = {nothing_fd, nothing_fd, nothing_fd};
    if (request->argv) {
        struct clone_request program = {.entry = program_main, .cgroup_fd = -1, .grandchild = true};
        pid_t pid = clone_child(&program);
        if (pid < 0)
            errno = -pid;
        if (child.error)
            errno = child.error;
        if (pid < 0 || child.error)
            return;
        snprintf(number, sizeof number, "%d", (int)pid);
    }
    if (!take_standard(nothing, false))
        syscall(SYS_execveat, program_fd, "", argv, envp, AT_EMPTY_PATH);
}

static void child_main(void)
{
    if (prepare(child.request))
        child_failed();
    if (!(child.request->flags & EXEC_INIT))
        program_main();
    init_main(child.request);
    child_failed();
}

/* Into the container's PID namespace, or a new one: the agent's own is left for the moment. */
static pid_t start_child(const struct spawn *request)
{
    bool first = request->namespaces && (request->flags & EXEC_FIRST);
    if (request->pid_namespace >= 0 && setns(request->pid_namespace, CLONE_NEWPID))
        return -errno;
    child.clone = (struct clone_request){
        .entry = child_main, .flags = first ? CLONE_NEWPID : 0, .cgroup_fd = request->cgroup_fd};
    pid_t pid = clone_child(&child.clone);
    if (request->pid_namespace < 0)
        return pid;
    if (setns(own_pids_fd, CLONE_NEWPID))
        abort(); /* or the agent's next children would be the container's */
    return pid == -ENOMEM ? -ESRCH : pid; /* its first process is about to end */
}

static int open_terminal(const struct spawn *request, int *master, int *slave)
{
    int unlocked = 0;
    struct winsize size = {.ws_row = request->rows, .ws_col = request->columns};
    if (request->namespaces)
        *master = container_open_terminal();
    else if ((*master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)) < 0)
        *master = -errno;
    if (*master < 0)
        return *master;
    if (ioctl(*master, TIOCSPTLCK, &unlocked) || ioctl(*master, TERMINAL_NUMBER, &child.terminal) ||
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
    if (!request->argv)
        return 0;
    if (request->flags & EXEC_TERMINAL) {
        if ((error = open_terminal(request, &ours[0], &theirs[0])))
            return error;
        theirs[1] = theirs[2] = theirs[0];
        ours[1] = ours[0];
        return 0;
    }
    for (int i = 0; i < 3; i++) {
        if (i == 0 && !(request->flags & EXEC_STDIN)) {
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

/* What children need of the agent's own. */
static int open_own(void)
{
    if (nothing_fd < 0)
        nothing_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (program_fd < 0)
        program_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (own_pids_fd < 0)
        own_pids_fd = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    return nothing_fd < 0 || program_fd < 0 || own_pids_fd < 0 ? -errno : 0;
}

int spawn_process(const struct spawn *request, struct spawned *result)
{
    int theirs[3] = {-1, -1, -1}, ours[3] = {-1, -1, -1};
    int error = open_own();
    child.terminal = -1;
    if (!error)
        error = open_standard(request, theirs, ours);
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
