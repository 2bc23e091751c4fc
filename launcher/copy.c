#include "copy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "options.h"

#define SET_REGISTER_SET 0x4205 /* PTRACE_SETREGSET */
#define CAPABILITIES 0x20080522 /* _LINUX_CAPABILITY_VERSION_3 */

/* What is stopped, and the copy that is being made; 0: none. */
static pid_t stopped, half_made;
/* What goes on whatever happens. */
static struct parent *going_on;

void give_up_with(pid_t pid)
{
    stopped = pid;
    going_on = NULL;
    half_made = 0;
}

void give_up_letting_go(struct parent *parent)
{
    going_on = parent;
}

static _Noreturn void end_with(int status, const char *why)
{
    if (going_on) {
        for (size_t i = 0; i < going_on->thread_count; i++)
            thread_go_on(&going_on->threads[i].thread);
        thread_forget(going_on->pid);
    }
    pid_t copy = thread_end_all(stopped, half_made);
    if (copy) {
        printf("-%d\n", (int)copy);
        fflush(stdout);
    }
    fail(status, "%s", why);
}

_Noreturn void give_up(const char *format, ...)
{
    char why[512];
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    pid_t pid = going_on ? going_on->pid : stopped;
    /* That it has ended is why, whatever it was that could not be done; ptrace(2) says so of one that is about to. */
    bool is_gone = error == ESRCH || (pid && thread_is_dead(pid, pid));
    end_with(is_gone ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN, why);
}

_Noreturn void give_up_gone(pid_t pid)
{
    char why[64];
    snprintf(why, sizeof why, "process %d has ended", (int)pid);
    end_with(EXIT_NOT_FOUND, why);
}

long call(struct stopped_thread *thread, const char *what, long number, const uint64_t arguments[MAX_ARGUMENTS])
{
    long result = thread_call_with(thread, number, arguments);
    if (result == -ESRCH)
        give_up_gone(thread->pid);
    if (result < 0)
        give_up("process %d cannot %s: %s", (int)thread->pid, what, strerror((int)-result));
    return result;
}

void write_there(pid_t pid, uint64_t address, const void *bytes, size_t count)
{
    struct iovec here = {(void *)(uintptr_t)bytes, count}, there = {(void *)(uintptr_t)address, count};
    if (process_vm_writev(pid, &here, 1, &there, 1, 0) != (ssize_t)count)
        give_up("cannot write into process %d: %s", (int)pid, strerror(errno));
}

void read_there(pid_t pid, uint64_t address, void *bytes, size_t count)
{
    struct iovec here = {bytes, count}, there = {(void *)(uintptr_t)address, count};
    if (process_vm_readv(pid, &here, 1, &there, 1, 0) != (ssize_t)count)
        give_up("cannot read from process %d: %s", (int)pid, strerror(errno));
}

/* The thread that a fork or a clone has made: it is stopped before its first instruction. */
static void wait_for_new(pid_t pid)
{
    int status = thread_next_stop(pid);
    if (status < 0)
        give_up_gone(pid);
}

static int by_number(const void *a, const void *b)
{
    return ((const struct place *)a)->descriptor - ((const struct place *)b)->descriptor;
}

static void add_place(struct parent *parent, int descriptor, int kind, const struct event *event)
{
    if (parent->place_count == MAX_PLACES)
        give_up("process %d has too many descriptors for a copy: at most %d", (int)parent->pid, MAX_PLACES);
    struct place *place = &parent->places[parent->place_count++];
    place->descriptor = descriptor;
    place->kind = kind;
    if (event)
        place->event = *event;
}

/*
 * What copies get of their own is closed in the parent, which has no use for it any more: a message's descriptors get the lowest numbers that are free, one
 * after the other, so that all come into their places by one system call. What was free before is filled, too, and closed again.
 */
void copy_lay_out(struct parent *parent, const struct passed *passed, size_t count)
{
    struct stopped_thread *first = &parent->threads[0].thread;
    char path[64];
    for (size_t i = 0; i < parent->event_count; i++)
        add_place(parent, parent->events[i].descriptor, EVENT, &parent->events[i]);
    for (size_t i = 0; i < count; i++)
        if (passed[i].there >= 0)
            add_place(parent, passed[i].there, PASSED, NULL);
    if (!parent->place_count)
        return;
    qsort(parent->places, parent->place_count, sizeof *parent->places, by_number);
    size_t wanted = parent->place_count;
    for (size_t i = 0; i < wanted; i++)
        thread_call(first, SYS_close, (uint64_t)parent->places[i].descriptor, 0, 0); /* if it is open */
    for (int number = 0, next = 0; number < parent->places[wanted - 1].descriptor; number++) {
        if (number == parent->places[next].descriptor) {
            next++;
            continue;
        }
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)parent->pid, number);
        struct stat link;
        if (lstat(path, &link))
            add_place(parent, number, GAP, NULL);
    }
    qsort(parent->places, parent->place_count, sizeof *parent->places, by_number);
}

/* What a copy gets as a place's descriptor; what is made for it is closed by who has sent it. */
static int for_place(const struct parent *parent, const struct place *place, const struct passed *passed, size_t count)
{
    if (place->kind == EVENT)
        return place->event.flags == EMPTY_EPOLL ? epoll_create1(EPOLL_CLOEXEC) : eventfd(place->event.count, place->event.flags);
    for (size_t i = 0; i < count; i++)
        if (place->kind == PASSED && passed[i].there == place->descriptor)
            return passed[i].here;
    if (place->kind == PASSED)
        give_up("a copy of process %d gets no descriptor %d, which others have got", (int)parent->pid, place->descriptor);
    return parent->channel;
}

/*
 * Sends a copy its descriptors, and has it take them: they come into the places that are free, files of control groups behind them. Returns how many there are;
 * `there` are their numbers.
 */
static size_t give_descriptors(const struct parent *parent, struct stopped_thread *copy, const struct passed *passed, size_t count, int there[MAX_SENT])
{
    struct {
        struct msghdr header;
        struct iovec data;
        char byte;
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(MAX_SENT * sizeof(int))];
    } message = {.byte = 0};
    int here[MAX_SENT];
    size_t sent = 0;
    for (; sent < parent->place_count; sent++)
        if ((here[sent] = for_place(parent, &parent->places[sent], passed, count)) < 0)
            give_up("cannot make an event: %s", strerror(errno));
    for (size_t i = 0; i < count; i++)
        if (passed[i].there < 0)
            here[sent++] = passed[i].here;
    size_t bytes = sent * sizeof(int);
    if (!sent)
        return 0;
    message.data = (struct iovec){&message.byte, 1};
    message.header = (struct msghdr){.msg_iov = &message.data, .msg_iovlen = 1, .msg_control = message.control};
    message.header.msg_controllen = CMSG_SPACE(bytes);
    struct cmsghdr *control = CMSG_FIRSTHDR(&message.header);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(bytes);
    memcpy(CMSG_DATA(control), here, bytes);
    if (sendmsg(parent->channel, &message.header, MSG_NOSIGNAL) != 1)
        give_up("cannot send descriptors: %s", strerror(errno));
    for (size_t i = 0; i < parent->place_count; i++)
        if (parent->places[i].kind == EVENT)
            close(here[i]);
    /* The same, as it lies over there. */
    uint64_t base = parent->scratch - sizeof message;
    message.data.iov_base = (void *)(uintptr_t)(base + offsetof(__typeof__(message), byte));
    message.header.msg_iov = (void *)(uintptr_t)(base + offsetof(__typeof__(message), data));
    message.header.msg_control = (void *)(uintptr_t)(base + offsetof(__typeof__(message), control));
    message.header.msg_controllen = sizeof message.control;
    write_there(copy->pid, base, &message, sizeof message);
    CALL(copy, "take descriptors", SYS_recvmsg, (uint64_t)parent->channel_there, base + offsetof(__typeof__(message), header),
         MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    read_there(copy->pid, base, &message, sizeof message);
    if (message.header.msg_controllen < CMSG_LEN(bytes))
        give_up("process %d has not got all descriptors", (int)copy->pid);
    memcpy(there, CMSG_DATA((struct cmsghdr *)message.control), bytes);
    for (size_t i = 0; i < parent->place_count; i++)
        if (there[i] != parent->places[i].descriptor)
            give_up("process %d has got descriptor %d as %d", (int)copy->pid, parent->places[i].descriptor, there[i]);
    return sent;
}

/* It joins its control groups itself: the kernel lets a thread do so without waiting for all others. */
static void take_descriptors(const struct parent *parent, struct stopped_thread *copy, const struct passed *passed, size_t count)
{
    int there[MAX_SENT];
    write_there(copy->pid, parent->scratch, "0", 1);
    size_t sent = give_descriptors(parent, copy, passed, count, there);
    for (size_t i = 0; i < sent; i++) {
        bool is_group = i >= parent->place_count;
        if (is_group)
            CALL(copy, "join a control group", SYS_write, (uint64_t)there[i], parent->scratch, 1);
        if (is_group || parent->places[i].kind == GAP)
            CALL(copy, "close a descriptor", SYS_close, (uint64_t)there[i]);
    }
    CALL(copy, "close a descriptor", SYS_close, (uint64_t)parent->channel_there);
}

/* Writes who is known in a user namespace. Returns 0 or errno. */
static int write_map(pid_t pid, const char *name, uint64_t first, uint64_t count)
{
    char path[64], map[80];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int length = snprintf(map, sizeof map, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", first, first, count);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return errno;
    int error = write(file, map, (size_t)length) == length ? 0 : errno;
    close(file);
    return error;
}

static int write_maps(const struct parent *parent, pid_t copy)
{
    int error = write_map(copy, "uid_map", parent->first_uid, parent->uids);
    return error ? error : write_map(copy, "gid_map", parent->gid, 1);
}

/* The kernel takes them from somebody in the namespace around it only: from us, or from one who goes there and does not come back. */
static int write_maps_from_outside(const struct parent *parent, pid_t copy)
{
    int status = 0;
    if (!parent->has_namespace)
        return write_maps(parent, copy);
    pid_t helper = fork();
    if (helper < 0)
        return errno;
    if (!helper)
        _exit(setns(parent->namespace, CLONE_NEWUSER) ? errno : write_maps(parent, copy));
    while (waitpid(helper, &status, 0) != helper)
        if (errno != EINTR)
            return errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD;
}

/* A user namespace in which it is whom it is to be: so it can become that without a right that it had before, and has none afterwards. */
static void become_user(const struct parent *parent, struct stopped_thread *copy, uint64_t uid)
{
    const struct {
        uint32_t version;
        int32_t pid;
        uint32_t sets[2][3];
    } none = {CAPABILITIES, 0, {{0}}};
    CALL(copy, "make a user namespace", SYS_unshare, CLONE_NEWUSER);
    int error = write_maps_from_outside(parent, copy->pid);
    if (error)
        give_up("cannot give process %d its user: %s", (int)copy->pid, strerror(error));
    CALL(copy, "become its user", SYS_setresuid, uid, uid, uid);
    write_there(copy->pid, parent->scratch, &none, sizeof none);
    CALL(copy, "give up its rights", SYS_capset, parent->scratch, parent->scratch + offsetof(__typeof__(none), sets));
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

pid_t copy_begin(struct parent *parent)
{
    half_made = (pid_t)CALL(&parent->threads[0].thread, "be copied", SYS_clone, SIGCHLD | CLONE_PARENT);
    wait_for_new(half_made);
    return half_made;
}

pid_t copy_make(struct parent *parent, uint64_t uid, const struct passed *passed, size_t count, bool itself)
{
    static struct stopped_thread threads[MAX_THREADS];
    const struct original *first = &parent->threads[0];
    struct stopped_thread *copy = &threads[0];
    *copy = first->thread;
    if (!itself)
        copy->pid = copy_begin(parent);
    take_descriptors(parent, copy, passed, count);
    become_user(parent, copy, uid);
    uint32_t id = (uint32_t)copy->pid;
    write_there(copy->pid, first->tid_address, &id, sizeof id);
    CALL(copy, "have its id", SYS_set_tid_address, first->tid_address);
    CALL(copy, "have its locks", SYS_set_robust_list, first->robust_list, first->robust_bytes);
    for (size_t i = 1; i < parent->thread_count; i++)
        threads[i] = copy_thread(copy, &parent->threads[i]);
    for (size_t i = parent->thread_count; i-- > 0;)
        thread_go_on(&threads[i]);
    half_made = 0;
    return copy->pid;
}
