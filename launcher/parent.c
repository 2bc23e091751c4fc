#include "parent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "copy.h"
#include "options.h"

#define SET_OPTIONS 0x4200 /* PTRACE_SETOPTIONS and so on */
#define GET_REGISTER_SET 0x4204
#define GET_RSEQ 0x420f
#define OPTIONS (1 << 1 | 1 << 3 | 1 << 20) /* what forks and clones make is stopped, too; all end with us */
#define TID_ADDRESS 40                          /* PR_GET_TID_ADDRESS */
#define DO_FORK 11                              /* MADV_DOFORK */
#define SCRATCH_BELOW 2048                      /* the stack of a thread that waits in a system call is free below the red zone */
#define SYS_PIDFD_GETFD 438
#define SYS_PIDFD_OPEN 434

static struct parent parent;
static int creator; /* pidfd of who has started us, and has open what copies get */
static int kept;    /* pidfd of the process */

/* Stops all threads that it has. New ones may come until all are stopped. */
static void stop_threads(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)parent.pid);
    for (bool found = true; found;) {
        found = false;
        DIR *tasks = opendir(path);
        if (!tasks)
            give_up("cannot look at process %d: %s", (int)parent.pid, strerror(errno));
        for (struct dirent *entry; (entry = readdir(tasks));) {
            pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
            bool known = tid == 0;
            for (size_t i = 0; i < parent.thread_count; i++)
                known |= parent.threads[i].thread.pid == tid;
            if (known)
                continue;
            if (parent.thread_count == MAX_THREADS)
                give_up("process %d has more than %d threads", (int)parent.pid, MAX_THREADS);
            struct original *original = &parent.threads[parent.thread_count++];
            int error = thread_stop(&original->thread, tid);
            if (!error && ptrace(SET_OPTIONS, tid, NULL, (void *)OPTIONS))
                error = -errno;
            if (error)
                give_up("cannot stop thread %d: %s", (int)tid, strerror(-error));
            found = true;
        }
        closedir(tasks);
    }
}

/* What the kernel knows of a thread beside its registers, and a new one has to be told. */
static void describe(struct original *original)
{
    struct stopped_thread *thread = &original->thread;
    struct iovec extended = {original->extended, sizeof original->extended};
    if (ptrace(GET_REGISTER_SET, thread->pid, (void *)EXTENDED_STATE, &extended))
        give_up("cannot read the registers of thread %d: %s", (int)thread->pid, strerror(errno));
    original->extended_bytes = extended.iov_len;
    CALL(thread, "tell where its id is", SYS_prctl, TID_ADDRESS, parent.scratch);
    read_there(thread->pid, parent.scratch, &original->tid_address, sizeof original->tid_address);
    uint32_t id = 0;
    read_there(thread->pid, original->tid_address, &id, sizeof id);
    if (id != (uint32_t)thread->pid)
        give_up("thread %d has another id at its place", (int)thread->pid);
    if (syscall(SYS_get_robust_list, thread->pid, &original->robust_list, &original->robust_bytes))
        give_up("cannot read the locks of thread %d: %s", (int)thread->pid, strerror(errno));
    if (ptrace(GET_RSEQ, thread->pid, (void *)sizeof original->rseq, &original->rseq) < 0)
        original->rseq = (struct rseq_place){0}; /* before Linux 5.13: its C library does without */
}

/* Guest memory is told not to be copied by fork(2), since a fork that starts a program had no use for it. */
static void share_all_memory(void)
{
    char path[64], line[512];
    uint64_t start = 0, end = 0, from, to;
    snprintf(path, sizeof path, "/proc/%d/smaps", (int)parent.pid);
    FILE *mappings = fopen(path, "re");
    if (!mappings)
        give_up("cannot read %s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, mappings)) {
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &from, &to) == 2) {
            start = from;
            end = to;
        } else if (!strncmp(line, "VmFlags:", 8) && strstr(line, " dc")) {
            CALL(&parent.threads[0].thread, "share its memory", SYS_madvise, start, end - start, DO_FORK);
        }
    }
    fclose(mappings);
}

/* A pair of sockets, one end of it for us. */
static void open_channel(void)
{
    struct stopped_thread *first = &parent.threads[0].thread;
    int ends[2];
    CALL(first, "make a socket pair", SYS_socketpair, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, parent.scratch);
    read_there(parent.pid, parent.scratch, ends, sizeof ends);
    parent.channel = (int)syscall(SYS_PIDFD_GETFD, kept, ends[0], 0);
    if (parent.channel < 0)
        give_up("cannot take a descriptor of process %d: %s", (int)parent.pid, strerror(errno));
    CALL(first, "close a descriptor", SYS_close, (uint64_t)ends[0]);
    parent.channel_there = ends[1];
}

/* Flags of an event or epoll; -ENOTEMPTY for an epoll that watches something. */
static int flags_of(int descriptor)
{
    char path[64], line[128];
    unsigned flags = 0;
    int watched = 0;
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", (int)parent.pid, descriptor);
    FILE *info = fopen(path, "re");
    while (info && fgets(line, sizeof line, info)) {
        sscanf(line, "flags: %o", &flags);
        watched += !strncmp(line, "tfd:", 4);
    }
    if (info)
        fclose(info);
    return watched ? -ENOTEMPTY : (int)flags & (O_NONBLOCK | O_CLOEXEC);
}

/* By number: a directory need not have them in that order. */
static void sort_events(void)
{
    for (size_t i = 1; i < parent.event_count; i++)
        for (size_t at = i; at > 0 && parent.events[at - 1] > parent.events[at]; at--) {
            int number = parent.events[at], flags = parent.event_flags[at];
            parent.events[at] = parent.events[at - 1];
            parent.event_flags[at] = parent.event_flags[at - 1];
            parent.events[at - 1] = number;
            parent.event_flags[at - 1] = flags;
        }
}

/* Whether a socket only waits for connections. One that is connected would say to two what was meant for one. */
static bool only_listens(int descriptor)
{
    int listens = 0, ours = (int)syscall(SYS_PIDFD_GETFD, kept, descriptor, 0);
    socklen_t size = sizeof listens;
    bool known = ours >= 0 && !getsockopt(ours, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
    if (ours >= 0)
        close(ours);
    return known && listens;
}

/* Events that a process and its copy would share have to be made anew; what else cannot be shared is not there, or there is no copy. */
static void list_descriptors(void)
{
    static const char *const refused[] = {"anon_inode:[io_uring]", "anon_inode:[timerfd]", "anon_inode:kvm", "pipe:"};
    char path[64], target[256];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)parent.pid);
    DIR *descriptors = opendir(path);
    if (!descriptors)
        give_up("cannot read %s: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(descriptors));) {
        ssize_t length = readlinkat(dirfd(descriptors), entry->d_name, target, sizeof target - 1);
        if (length < 0)
            continue; /* . and .. */
        target[length] = 0;
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
            if (!strncmp(target, refused[i], strlen(refused[i])))
                give_up("process %d has %s open, which no two can have", (int)parent.pid, target);
        int descriptor = (int)strtol(entry->d_name, NULL, 10);
        if (!strncmp(target, "socket:", strlen("socket:")) && !only_listens(descriptor))
            give_up("process %d is still connected to somebody", (int)parent.pid);
        bool is_epoll = !strcmp(target, "anon_inode:[eventpoll]");
        if (!is_epoll && strcmp(target, "anon_inode:[eventfd]"))
            continue;
        int flags = flags_of(descriptor);
        if (flags < 0)
            give_up("process %d has %s open and in use, which no two can have", (int)parent.pid, target);
        if (parent.event_count == MAX_EVENTS)
            give_up("process %d has more than %d events", (int)parent.pid, MAX_EVENTS);
        parent.event_flags[parent.event_count] = is_epoll ? EMPTY_EPOLL : flags;
        parent.events[parent.event_count++] = descriptor;
    }
    closedir(descriptors);
    sort_events();
}

static void begin(char **arguments)
{
    if (!arguments[0] || !arguments[1])
        fail(EXIT_CANNOT_RUN, "--parent takes PID START_TIME");
    parent.pid = (pid_t)number_of("--parent", "PID", arguments[0]);
    uint64_t start_time = number_of("--parent", "START_TIME", arguments[1]);
    creator = (int)syscall(SYS_PIDFD_OPEN, getppid(), 0);
    if (creator < 0)
        fail(EXIT_CANNOT_RUN, "cannot open the process that has started this one: %s", strerror(errno));
    if (!process_is(parent.pid, start_time))
        fail(EXIT_CANNOT_RUN, "cannot look at process %d: %s", (int)parent.pid, strerror(ESRCH));
    give_up_with(parent.pid);
    stop_threads();
    for (size_t i = 1; i < parent.thread_count; i++)
        if (parent.threads[i].thread.pid == parent.pid) {
            static struct original other;
            other = parent.threads[0];
            parent.threads[0] = parent.threads[i];
            parent.threads[i] = other;
        }
    parent.scratch = (parent.threads[0].thread.registers.rsp - SCRATCH_BELOW) & ~(uint64_t)63;
    for (size_t i = 0; i < parent.thread_count; i++)
        describe(&parent.threads[i]);
    share_all_memory();
    kept = (int)syscall(SYS_PIDFD_OPEN, parent.pid, 0);
    if (kept < 0)
        give_up("cannot open process %d: %s", (int)parent.pid, strerror(errno));
    list_descriptors();
    open_channel();
}

/* "DESCRIPTOR=NUMBER" or "join=NUMBER", of which this process gets what the creator has open as NUMBER. */
static struct passed parse_passed(const char *word)
{
    const char *equals = strchr(word, '=');
    if (!equals)
        give_up("--parent takes DESCRIPTOR=NUMBER, not %s", word);
    bool joins = !strncmp(word, "join=", strlen("join="));
    struct passed passed = {-1, joins ? -1 : (int)strtol(word, NULL, 10)};
    passed.here = (int)syscall(SYS_PIDFD_GETFD, creator, (int)number_of("--parent", "NUMBER", equals + 1), 0);
    if (passed.here < 0)
        give_up("cannot take descriptor %s: %s", word, strerror(errno));
    return passed;
}

/* Does nothing: a signal that is waited for has to be caught. */
static void notice(int number)
{
    (void)number;
}

/* Waits for a line, or the end of the process, which nobody else is told of as long as this program stops it. */
static bool is_asked(void)
{
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    struct sigaction action = {.sa_handler = notice};
    sigset_t none, ends;
    sigemptyset(&none);
    sigemptyset(&ends);
    sigaddset(&ends, SIGCHLD);
    sigaction(SIGCHLD, &action, NULL);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    for (;;) {
        if (thread_has_ended(parent.pid))
            give_up_gone(parent.pid);
        if (ppoll(&input, 1, NULL, &none) > 0)
            return true;
        if (errno != EINTR)
            give_up("cannot wait for a line: %s", strerror(errno));
    }
}

_Noreturn void parent_run(char **arguments)
{
    char line[512];
    protect_from_signals();
    begin(arguments);
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0); /* what has been read is what has been asked */
    printf("ready\n");
    while (is_asked() && fgets(line, sizeof line, stdin)) {
        struct passed passed[MAX_PASSED];
        size_t count = 0;
        char *at = NULL, *word = strtok_r(line, " \n", &at);
        if (!word)
            give_up("--parent takes UID and descriptors");
        uint64_t uid = number_of("--parent", "UID", word);
        while ((word = strtok_r(NULL, " \n", &at))) {
            if (count == MAX_PASSED)
                give_up("--parent takes at most %d descriptors", MAX_PASSED);
            passed[count++] = parse_passed(word);
        }
        pid_t pid = copy_make(&parent, uid, passed, count);
        for (size_t i = 0; i < count; i++)
            close(passed[i].here);
        printf("%d\n", (int)pid);
    }
    exit(0);
}
