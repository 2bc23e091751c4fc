#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clone.h"
#include "text.h"

#define HIERARCHY "/sys/fs/cgroup"
#define WORKLOAD HIERARCHY "/workload"
#define HOOKS HIERARCHY "/hooks"
#define MAX_GROUPS 256
#define GROUPS_AT_START 4
#define CPU_PERIOD_US 100000
#define SIGNAL_ROUNDS 8

struct cgroup_state cgroup_state;

static int workload_fd = -1, hooks_fd = -1, events_fd = -1, freezer_fd = -1, namespace_fd = -1;
static bool kernel_frozen;
static struct {
    int directory, events;
    bool used, killed, hook;
    unsigned generation; /* of the limits that it shows */
    bool empty; /* it was seen without processes, and none was started into it since */
} groups[MAX_GROUPS];
static int group_count;

/* Limits that sub-groups show: those of the workload, since some programs read the ones of their own group only. */
static struct {
    char memory[24], cpu[48];
    bool shown;         /* the controllers are on in sub-groups */
    unsigned generation; /* raised by each change */
} limits;

static int parent_of(int group) { return groups[group].hook ? hooks_fd : workload_fd; }

static void show_limits(int group)
{
    if (groups[group].hook || groups[group].generation == limits.generation)
        return;
    text_write_at(groups[group].directory, "memory.max", limits.memory);
    text_write_at(groups[group].directory, "cpu.max", limits.cpu);
    groups[group].generation = limits.generation;
}

static int open_group(int group)
{
    char name[16];
    snprintf(name, sizeof name, "%d", group);
    if (mkdirat(parent_of(group), name, 0755) && errno != EEXIST)
        return -errno;
    int directory = openat(parent_of(group), name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return -errno;
    groups[group].events = openat(directory, "cgroup.events", O_RDONLY | O_CLOEXEC);
    groups[group].directory = directory;
    groups[group].killed = false;
    groups[group].empty = true;
    groups[group].generation = 0;
    return group;
}

static int make_group(bool hook)
{
    if (group_count == MAX_GROUPS)
        return -EAGAIN;
    groups[group_count].hook = hook;
    int group = open_group(group_count);
    if (group >= 0)
        group_count++;
    return group;
}

/*
 * Makes a group that was killed anew. Newer kernels (stable ones among them) compare how often a group was killed with
 * how often the group of the *parent* was, and end whatever is cloned straight into a group that was killed before.
 */
static int renew_group(int group)
{
    char name[16];
    snprintf(name, sizeof name, "%d", group);
    if (unlinkat(parent_of(group), name, AT_REMOVEDIR))
        return -errno;
    close(groups[group].directory);
    close(groups[group].events);
    groups[group].directory = groups[group].events = -1; /* never empty, so never taken, if it cannot be made */
    return open_group(group);
}

/* In a child that started in the workload's group, with the agent's descriptors. */
static void make_namespace(void)
{
    if (!unshare(CLONE_NEWCGROUP))
        namespace_fd = open("/proc/self/ns/cgroup", O_RDONLY | O_CLOEXEC);
    _exit(0);
}

/* Once and for all: containers come and go, the group stays. */
static int open_namespace(void)
{
    struct clone_request request = {.entry = make_namespace, .flags = CLONE_FILES, .cgroup_fd = workload_fd};
    pid_t pid = clone_child(&request);
    if (pid < 0)
        return pid;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    return 0;
}

int cgroup_init(const char **what)
{
    static const char *const controllers[] = {"+memory", "+pids", "+cpu"};
    for (size_t i = 0; i < sizeof controllers / sizeof *controllers; i++)
        text_write(HIERARCHY "/cgroup.subtree_control", controllers[i]); /* a kernel may lack one; LIMITS says so then */
    *what = WORKLOAD;
    if (mkdir(WORKLOAD, 0755) && errno != EEXIST)
        return -errno;
    workload_fd = open(WORKLOAD, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (workload_fd < 0)
        return -errno;
    *what = WORKLOAD "/cgroup.events";
    events_fd = openat(workload_fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
    if (events_fd < 0)
        return -errno;
    *what = WORKLOAD "/cgroup.freeze";
    freezer_fd = openat(workload_fd, "cgroup.freeze", O_WRONLY | O_CLOEXEC);
    if (freezer_fd < 0)
        return -errno;
    *what = HOOKS;
    if (mkdir(HOOKS, 0755) && errno != EEXIST)
        return -errno;
    hooks_fd = open(HOOKS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (hooks_fd < 0)
        return -errno;
    *what = WORKLOAD "'s namespace";
    int error = open_namespace();
    if (error)
        return error;
    *what = WORKLOAD "/0";
    for (int i = 0; i < GROUPS_AT_START; i++) {
        int group = make_group(false);
        if (group < 0)
            return group;
    }
    return 0;
}

/* The number behind `key` in cgroup.events; reading the descriptor that is polled also re-arms it. */
static uint64_t read_event(int fd, const char *key, uint64_t fallback)
{
    char text[256];
    ssize_t length = pread(fd, text, sizeof text - 1, 0);
    if (length < 0)
        return fallback;
    text[length] = 0;
    return text_number(text, key, fallback);
}

bool cgroup_is_populated(int group)
{
    if (!groups[group].empty)
        groups[group].empty = read_event(groups[group].events, "populated ", 1) == 0;
    return !groups[group].empty;
}

/* The first group that is free and empty, of those that were killed or of those that were not. */
static int find_free(bool hook, bool killed)
{
    for (int group = 0; group < group_count; group++)
        if (!groups[group].used && groups[group].hook == hook && groups[group].killed == killed &&
            !cgroup_is_populated(group))
            return group;
    return -1;
}

int cgroup_acquire(bool hook)
{
    int group = find_free(hook, false);
    if (group < 0) {
        group = find_free(hook, true);
        group = group < 0 ? group : renew_group(group);
    }
    if (group < 0) {
        group = make_group(hook);
    }
    if (group >= 0) {
        show_limits(group);
        groups[group].used = true;
        groups[group].empty = false;
    }
    return group;
}

void cgroup_return(int group) { groups[group].used = false; }

int cgroup_namespace(void) { return namespace_fd; }

int cgroup_directory(int group) { return groups[group].directory; }

/* Signals those that are in the group now; sets *any if there were some. */
static int signal_members(int group, int signal, pid_t except, bool *any)
{
    char text[4096];
    ssize_t length;
    off_t offset = 0;
    int fd = openat(groups[group].directory, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    while ((length = pread(fd, text, sizeof text - 1, offset)) > 0) {
        text[length] = 0;
        char *last = strrchr(text, '\n'), *line = text;
        if (!last)
            break;
        offset += last + 1 - text;
        for (; line <= last; line = strchr(line, '\n') + 1) {
            pid_t pid = atoi(line);
            if (pid > 1 && (pid == except || kill(pid, signal) == 0))
                *any = true;
        }
    }
    close(fd);
    return 0;
}

int cgroup_signal(int group, pid_t leader, int signal, pid_t except)
{
    bool any = false;
    int error = 0;
    (void)leader;
    if (group < 0)
        return -ESRCH;
    if (signal == SIGKILL) {
        groups[group].killed = true;
        if (text_write_at(groups[group].directory, "cgroup.kill", "1") == 0)
            return 0;
        for (int round = 0; round < SIGNAL_ROUNDS && !error; round++) { /* kernels before 5.14: whoever forks meanwhile */
            any = false;
            error = signal_members(group, signal, 0, &any);
            if (!any)
                break;
        }
        return error;
    }
    error = signal_members(group, signal, except, &any);
    return error ? error : any ? 0 : -ESRCH;
}

/* The file stays open: opening and closing it takes twice the code that writing does, which each copy of a frozen guest would translate. */
static int write_freezer(const char *state) { return pwrite(freezer_fd, state, 1, 0) == 1 ? 0 : -errno; }

/*
 * An empty workload is frozen by the flag alone, since nothing is started into it while that is set: thawing a clone of the
 * base template then costs nothing.
 */
int cgroup_freeze(void)
{
    cgroup_state.frozen = true;
    if (!read_event(events_fd, "populated ", 1))
        return 0;
    kernel_frozen = true;
    return write_freezer("1");
}

int cgroup_thaw(void)
{
    int error = kernel_frozen ? write_freezer("0") : 0;
    if (!error)
        kernel_frozen = cgroup_state.frozen = false;
    return error;
}

bool cgroup_is_frozen(void) { return kernel_frozen ? read_event(events_fd, "frozen ", 0) == 1 : cgroup_state.frozen; }

int cgroup_events_fd(void) { return events_fd; }

/* Sub-groups have the controllers only once there is something to show: each costs a clone time and memory. */
static int show_in_groups(void)
{
    if (!limits.shown) {
        int error = text_write_at(workload_fd, "cgroup.subtree_control", "+memory +cpu");
        if (error)
            return error;
        limits.shown = true;
    }
    for (int group = 0; group < group_count; group++)
        if (groups[group].used)
            show_limits(group);
    return 0;
}

int cgroup_set_limits(uint64_t memory_bytes, uint64_t pids, uint32_t cpu_millis)
{
    char tasks[24] = "max";
    strcpy(limits.memory, "max");
    strcpy(limits.cpu, "max 100000");
    if (memory_bytes)
        snprintf(limits.memory, sizeof limits.memory, "%llu", (unsigned long long)memory_bytes);
    if (pids)
        snprintf(tasks, sizeof tasks, "%llu", (unsigned long long)pids);
    if (cpu_millis)
        snprintf(limits.cpu, sizeof limits.cpu, "%llu %d", (unsigned long long)cpu_millis * (CPU_PERIOD_US / 1000),
                 CPU_PERIOD_US);
    int error = text_write_at(workload_fd, "memory.max", limits.memory);
    if (!error)
        error = text_write_at(workload_fd, "pids.max", tasks);
    if (!error)
        error = text_write_at(workload_fd, "cpu.max", limits.cpu);
    if (error || !(memory_bytes || cpu_millis || limits.shown))
        return error;
    limits.generation++;
    return show_in_groups();
}

/* The number behind `key` in a file of the directory; `fallback` if it is not there. */
static uint64_t read_number(int directory, const char *file, const char *key, uint64_t fallback)
{
    char text[1024];
    if (text_read_at(directory, file, text, sizeof text) < 0)
        return fallback;
    return text_number(text, key, fallback);
}

void cgroup_read_usage(struct cgroup_usage *usage)
{
    usage->memory_bytes = read_number(workload_fd, "memory.current", "", 0);
    usage->pids = (uint32_t)read_number(workload_fd, "pids.current", "", 0);
    usage->cpu_us = read_number(workload_fd, "cpu.stat", "usage_usec ", 0);
}
