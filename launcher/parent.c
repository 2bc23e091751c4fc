#include "parent.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "options.h"
#include "thread.h"

#define SET_OPTIONS 0x4200 /* PTRACE_SETOPTIONS and so on */
#define EVENT_MESSAGE 0x4201
#define GET_REGISTER_SET 0x4204
#define SET_REGISTER_SET 0x4205
#define GET_RSEQ 0x420f
#define OPTIONS (1 | 1 << 1 | 1 << 3 | 1 << 20) /* system calls told apart; forks and clones are stopped, too; all end with us */
#define TID_ADDRESS 40                          /* PR_GET_TID_ADDRESS */
#define EXTENDED_STATE 0x202                    /* NT_X86_XSTATE */
#define DO_FORK 11                              /* MADV_DOFORK */
#define SYS_PIDFD_GETFD 438
#define SYS_PIDFD_OPEN 434

#define CAPABILITIES 0x20080522 /* _LINUX_CAPABILITY_VERSION_3 */

#define MAX_THREADS 64
#define MAX_EVENTS 1024
#define MAX_PASSED 16
#define MAX_EXTENDED_BYTES 16384
#define SCRATCH_BELOW 2048 /* the stack of a thread that waits in a system call is free below the red zone */

struct rseq_place {
    uint64_t address;
    uint32_t bytes, signature, flags, pad;
};

struct original {
    struct stopped_thread thread;
    uint64_t tid_address, robust_list, robust_bytes;
    struct rseq_place rseq;
    size_t extended_bytes;
    uint8_t extended[MAX_EXTENDED_BYTES];
};

/* What a copy gets: as which descriptor, or to join a control group by. */
struct passed {
    int here, there; /* there -1: a control group's file */
};

static struct {
    pid_t pid;
    int creator; /* pidfd of who has started us, and has open what copies get */
    struct original threads[MAX_THREADS];
    size_t thread_count;
    int events[MAX_EVENTS], event_flags[MAX_EVENTS];
    size_t event_count;
    int channel, channel_there; /* descriptors go through it: our end, and that of the process */
    uint64_t scratch;
} parent;

/* The copy that is being made; 0: none. */
static pid_t half_made;

__attribute__((format(printf, 1, 2))) static _Noreturn void give_up(const char *format, ...)
{
    char why[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    if (half_made) {
        kill(half_made, SIGKILL);
        printf("-%d\n", (int)half_made);
        fflush(stdout);
    }
    fail(EXIT_CANNOT_RUN, "%s", why);
}

/* A system call of a stopped thread that has to work. */
static long call(struct stopped_thread *thread, const char *what, long number, const uint64_t arguments[MAX_ARGUMENTS])
{
    long result = thread_call_with(thread, number, arguments);
    if (result < 0)
        give_up("process %d cannot %s: %s", (int)thread->pid, what, strerror((int)-result));
    return result;
}
#define CALL(thread, what, number, ...) call(thread, what, number, (uint64_t[MAX_ARGUMENTS]){__VA_ARGS__})

static void write_there(pid_t pid, uint64_t address, const void *bytes, size_t count)
{
    struct iovec here = {(void *)(uintptr_t)bytes, count}, there = {(void *)(uintptr_t)address, count};
    if (process_vm_writev(pid, &here, 1, &there, 1, 0) != (ssize_t)count)
        give_up("cannot write into process %d: %s", (int)pid, strerror(errno));
}

static void read_there(pid_t pid, uint64_t address, void *bytes, size_t count)
{
    struct iovec here = {bytes, count}, there = {(void *)(uintptr_t)address, count};
    if (process_vm_readv(pid, &here, 1, &there, 1, 0) != (ssize_t)count)
        give_up("cannot read from process %d: %s", (int)pid, strerror(errno));
}

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
static void open_channel(int pidfd)
{
    struct stopped_thread *first = &parent.threads[0].thread;
    int ends[2];
    CALL(first, "make a socket pair", SYS_socketpair, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, parent.scratch);
    read_there(parent.pid, parent.scratch, ends, sizeof ends);
    parent.channel = (int)syscall(SYS_PIDFD_GETFD, pidfd, ends[0], 0);
    if (parent.channel < 0)
        give_up("cannot take a descriptor of process %d: %s", (int)parent.pid, strerror(errno));
    CALL(first, "close a descriptor", SYS_close, (uint64_t)ends[0]);
    parent.channel_there = ends[1];
}

static int flags_of(int descriptor)
{
    char path[64], line[128];
    unsigned flags = 0;
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", (int)parent.pid, descriptor);
    FILE *info = fopen(path, "re");
    while (info && fgets(line, sizeof line, info))
        if (sscanf(line, "flags: %o", &flags) == 1)
            break;
    if (info)
        fclose(info);
    return (int)flags & (O_NONBLOCK | O_CLOEXEC);
}

/* Whether a socket only waits for connections. One that is connected would say to two what was meant for one. */
static bool only_listens(int pidfd, int descriptor)
{
    int listens = 0, ours = (int)syscall(SYS_PIDFD_GETFD, pidfd, descriptor, 0);
    socklen_t size = sizeof listens;
    bool known = ours >= 0 && !getsockopt(ours, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
    if (ours >= 0)
        close(ours);
    return known && listens;
}

/* Events that a process and its copy would share have to be made anew; what else cannot be shared is not there, or there is no copy. */
static void list_descriptors(int pidfd)
{
    static const char *const refused[] = {"anon_inode:[eventpoll]", "anon_inode:[io_uring]", "anon_inode:[timerfd]", "anon_inode:kvm", "pipe:"};
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
        if (!strncmp(target, "socket:", strlen("socket:")) && !only_listens(pidfd, descriptor))
            give_up("process %d is still connected to somebody", (int)parent.pid);
        if (strcmp(target, "anon_inode:[eventfd]"))
            continue;
        if (parent.event_count == MAX_EVENTS)
            give_up("process %d has more than %d events", (int)parent.pid, MAX_EVENTS);
        parent.event_flags[parent.event_count] = flags_of(descriptor);
        parent.events[parent.event_count++] = descriptor;
    }
    closedir(descriptors);
}

static void begin(char **arguments)
{
    if (!arguments[0] || !arguments[1])
        fail(EXIT_CANNOT_RUN, "--parent takes PID START_TIME");
    parent.pid = (pid_t)number_of("--parent", "PID", arguments[0]);
    uint64_t start_time = number_of("--parent", "START_TIME", arguments[1]);
    parent.creator = (int)syscall(SYS_PIDFD_OPEN, getppid(), 0);
    if (parent.creator < 0)
        fail(EXIT_CANNOT_RUN, "cannot open the process that has started this one: %s", strerror(errno));
    if (!process_is(parent.pid, start_time))
        fail(EXIT_CANNOT_RUN, "cannot look at process %d: %s", (int)parent.pid, strerror(ESRCH));
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
    int pidfd = (int)syscall(SYS_PIDFD_OPEN, parent.pid, 0);
    if (pidfd < 0)
        give_up("cannot open process %d: %s", (int)parent.pid, strerror(errno));
    list_descriptors(pidfd);
    open_channel(pidfd);
    close(pidfd);
}

/* The thread that a fork or a clone has made: it is stopped before its first instruction. */
static void wait_for_new(pid_t pid)
{
    int status = thread_next_stop(pid);
    if (status < 0)
        give_up("process %d has ended while it was made", (int)pid);
}

/* Has the copy take descriptors, in the order in which they are sent. */
static void send_descriptors(struct stopped_thread *copy, const struct passed *passed, size_t count, int there[MAX_PASSED])
{
    struct {
        struct msghdr header;
        struct iovec data;
        char byte;
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(MAX_PASSED * sizeof(int))];
    } message = {.byte = 0};
    message.data = (struct iovec){&message.byte, 1};
    message.header = (struct msghdr){.msg_iov = &message.data, .msg_iovlen = 1, .msg_control = message.control};
    message.header.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *control = CMSG_FIRSTHDR(&message.header);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (size_t i = 0; i < count; i++)
        memcpy(CMSG_DATA(control) + i * sizeof(int), &passed[i].here, sizeof(int));
    if (sendmsg(parent.channel, &message.header, MSG_NOSIGNAL) != 1)
        give_up("cannot send descriptors: %s", strerror(errno));
    /* The same, as it lies over there. */
    uint64_t base = parent.scratch - sizeof message;
    message.data.iov_base = (void *)(uintptr_t)(base + offsetof(__typeof__(message), byte));
    message.header.msg_iov = (void *)(uintptr_t)(base + offsetof(__typeof__(message), data));
    message.header.msg_control = (void *)(uintptr_t)(base + offsetof(__typeof__(message), control));
    message.header.msg_controllen = sizeof message.control;
    write_there(copy->pid, base, &message, sizeof message);
    CALL(copy, "take descriptors", SYS_recvmsg, (uint64_t)parent.channel_there, base + offsetof(__typeof__(message), header),
         MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    read_there(copy->pid, base, &message, sizeof message);
    if (message.header.msg_controllen < CMSG_LEN(count * sizeof(int)))
        give_up("process %d has not got all descriptors", (int)copy->pid);
    memcpy(there, CMSG_DATA((struct cmsghdr *)message.control), count * sizeof(int));
}

static void take_descriptors(struct stopped_thread *copy, const struct passed *passed, size_t count)
{
    int there[MAX_PASSED];
    write_there(copy->pid, parent.scratch, "0", 1);
    send_descriptors(copy, passed, count, there);
    for (size_t i = 0; i < count; i++) {
        if (passed[i].there < 0)
            CALL(copy, "join a control group", SYS_write, (uint64_t)there[i], parent.scratch, 1);
        else
            CALL(copy, "have a descriptor", SYS_dup3, (uint64_t)there[i], (uint64_t)passed[i].there, 0);
        CALL(copy, "close a descriptor", SYS_close, (uint64_t)there[i]);
    }
    CALL(copy, "close a descriptor", SYS_close, (uint64_t)parent.channel_there);
}

/* Events of its own in the places of those that it would share. */
static void make_events(struct stopped_thread *copy)
{
    for (size_t i = 0; i < parent.event_count; i++) {
        uint64_t place = (uint64_t)parent.events[i];
        uint64_t event = (uint64_t)CALL(copy, "make an event", SYS_eventfd2, 0, (uint64_t)parent.event_flags[i]);
        CALL(copy, "have an event", SYS_dup3, event, place, (uint64_t)(parent.event_flags[i] & O_CLOEXEC));
        CALL(copy, "close an event", SYS_close, event);
    }
}

/* A user namespace in which it is whom it is to be: so it can become that without a right that it had before, and has none afterwards. */
static void become_user(struct stopped_thread *copy, uint64_t uid)
{
    char path[64], map[64];
    const struct {
        uint32_t version;
        int32_t pid;
        uint32_t sets[2][3];
    } none = {CAPABILITIES, 0, {{0}}};
    CALL(copy, "make a user namespace", SYS_unshare, CLONE_NEWUSER);
    snprintf(path, sizeof path, "/proc/%d/uid_map", (int)copy->pid);
    int length = snprintf(map, sizeof map, "%" PRIu64 " %" PRIu64 " 1\n", uid, uid);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, map, (size_t)length) != length)
        give_up("cannot give process %d its user: %s", (int)copy->pid, strerror(errno));
    close(file);
    CALL(copy, "become its user", SYS_setresuid, uid, uid, uid);
    write_there(copy->pid, parent.scratch, &none, sizeof none);
    CALL(copy, "give up its rights", SYS_capset, parent.scratch, parent.scratch + offsetof(__typeof__(none), sets));
}

/* Makes the copy of one of the other threads, and lets it go on as that would. */
static struct stopped_thread copy_thread(struct stopped_thread *copy, const struct original *original)
{
    uint64_t flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |
                     CLONE_CHILD_CLEARTID;
    struct stopped_thread thread = original->thread;
    struct iovec extended = {(void *)(uintptr_t)original->extended, original->extended_bytes};
    thread.pid = (pid_t)CALL(copy, "make a thread", SYS_clone, flags, thread.registers.rsp, original->tid_address, original->tid_address,
                             thread.registers.fs_base);
    wait_for_new(thread.pid);
    CALL(&thread, "have its locks", SYS_set_robust_list, original->robust_list, original->robust_bytes);
    const struct rseq_place *rseq = &original->rseq;
    if (rseq->address)
        CALL(&thread, "have its restartable sequences", SYS_rseq, rseq->address, rseq->bytes, rseq->flags, rseq->signature);
    if (ptrace(SET_REGISTER_SET, thread.pid, (void *)EXTENDED_STATE, &extended))
        give_up("cannot write the registers of thread %d: %s", (int)thread.pid, strerror(errno));
    return thread;
}

static pid_t make_copy(uint64_t uid, const struct passed *passed, size_t count)
{
    static struct stopped_thread threads[MAX_THREADS];
    struct original *first = &parent.threads[0];
    threads[0] = first->thread;
    struct stopped_thread *copy = &threads[0];
    copy->pid = half_made = (pid_t)CALL(&first->thread, "be copied", SYS_clone, SIGCHLD | CLONE_PARENT);
    wait_for_new(copy->pid);
    take_descriptors(copy, passed, count);
    make_events(copy);
    become_user(copy, uid);
    uint32_t id = (uint32_t)copy->pid;
    write_there(copy->pid, first->tid_address, &id, sizeof id);
    CALL(copy, "have its id", SYS_set_tid_address, first->tid_address);
    CALL(copy, "have its locks", SYS_set_robust_list, first->robust_list, first->robust_bytes);
    for (size_t i = 1; i < parent.thread_count; i++)
        threads[i] = copy_thread(copy, &parent.threads[i]);
    for (size_t i = parent.thread_count; i-- > 0;)
        thread_go_on(&threads[i]);
    half_made = 0;
    return copy->pid;
}

/* "DESCRIPTOR=NUMBER" or "join=NUMBER", of which this process gets what the creator has open as NUMBER. */
static struct passed parse_passed(const char *word)
{
    const char *equals = strchr(word, '=');
    if (!equals)
        give_up("--parent takes DESCRIPTOR=NUMBER, not %s", word);
    bool joins = !strncmp(word, "join=", strlen("join="));
    struct passed passed = {-1, joins ? -1 : (int)strtol(word, NULL, 10)};
    passed.here = (int)syscall(SYS_PIDFD_GETFD, parent.creator, (int)number_of("--parent", "NUMBER", equals + 1), 0);
    if (passed.here < 0)
        give_up("cannot take descriptor %s: %s", word, strerror(errno));
    return passed;
}

_Noreturn void parent_run(char **arguments)
{
    char line[512];
    protect_from_signals();
    begin(arguments);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready\n");
    while (fgets(line, sizeof line, stdin)) {
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
        pid_t pid = make_copy(uid, passed, count);
        for (size_t i = 0; i < count; i++)
            close(passed[i].here);
        printf("%d\n", (int)pid);
    }
    exit(0);
}
