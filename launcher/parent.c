#include "parent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "copy.h"
#include "descriptors.h"
#include "image.h"
#include "options.h"

#define SET_OPTIONS 0x4200 /* PTRACE_SETOPTIONS and so on */
#define GET_REGISTER_SET 0x4204
#define GET_RSEQ 0x420f
#define TRACE_NEW (1 << 1 | 1 << 3)             /* what forks and clones make is stopped, too */
#define END_WITH_US (1 << 20)
#define TID_ADDRESS 40                          /* PR_GET_TID_ADDRESS */
#define DO_FORK 11                              /* MADV_DOFORK */
#define SCRATCH_BELOW 2048                      /* the stack of a thread that waits in a system call is free below the red zone */
#define NS_GET_PARENT 0xb702 /* ioctl_ns(2) */
#define MAX_DEPTH 30        /* of user namespaces: the kernel has 33 */

static struct parent parent;
static int creator; /* pidfd of who has started us, and has open what copies get */

/* One that cannot be stopped has ended meanwhile, or there is a reason to give up. */
static void forget_dead(size_t index, int error)
{
    pid_t tid = parent.threads[index].thread.pid;
    if (!thread_is_dead(parent.pid, tid))
        give_up("cannot stop thread %d: %s", (int)tid, strerror(-error));
    if (tid == parent.pid)
        give_up_gone(tid);
    parent.threads[index] = parent.threads[--parent.thread_count];
}

/* Begins to stop threads that are not known yet. */
static void begin_stops(DIR *tasks)
{
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
        original->thread.instruction = parent.instruction;
        int error = thread_begin_stop(&original->thread, tid);
        if (error)
            forget_dead(parent.thread_count - 1, error);
    }
}

/* Stops all threads that it has. New ones may come until all are stopped. */
static void stop_threads(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)parent.pid);
    for (size_t before = 0;; before = parent.thread_count) {
        DIR *tasks = opendir(path);
        if (!tasks)
            give_up("cannot look at process %d: %s", (int)parent.pid, strerror(errno));
        begin_stops(tasks);
        closedir(tasks);
        if (parent.thread_count == before)
            break;
        for (size_t i = parent.thread_count; i-- > before;) {
            int error = thread_end_stop(&parent.threads[i].thread);
            if (error)
                forget_dead(i, error);
        }
    }
    for (size_t i = 1; i < parent.thread_count; i++)
        if (parent.threads[i].thread.pid == parent.pid) {
            static struct original other;
            other = parent.threads[0];
            parent.threads[0] = parent.threads[i];
            parent.threads[i] = other;
        }
    parent.scratch = (parent.threads[0].thread.registers.rsp - SCRATCH_BELOW) & ~(uint64_t)63;
    errno = 0; /* that a thread has ended is no reason to give up */
}

/* Options of a first thread: they hold for what it makes, too. */
static void set_options(pid_t pid, long options)
{
    if (ptrace(SET_OPTIONS, pid, NULL, (void *)options))
        give_up("cannot follow process %d: %s", (int)pid, strerror(errno));
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

/*
 * QEMU tells the kernel not to copy guest memory by fork(2), since a fork that starts a program has no use for it. That is taken back for all that is
 * mapped: the kernel goes through it, says at the end that there are gaps, and stops at pages of its own, which are the last.
 */
static void share_all_memory(void)
{
    const uint64_t page = 4096, all = (uint64_t)1 << 47;
    long result = thread_call(&parent.threads[0].thread, SYS_madvise, page, all - 2 * page, DO_FORK);
    if (result == -ESRCH)
        give_up_gone(parent.pid);
    if (result && result != -ENOMEM && result != -EINVAL)
        give_up("process %d cannot share its memory: %s", (int)parent.pid, strerror((int)-result));
}

/* Whose users, and those of its copies, are known in their namespaces. */
static void look_at_user(void)
{
    char path[64], line[128];
    unsigned gid = 0;
    struct stat ours, its;
    snprintf(path, sizeof path, "/proc/%d/status", (int)parent.pid);
    FILE *status = fopen(path, "re");
    while (status && fgets(line, sizeof line, status) && sscanf(line, "Gid: %*u %u", &gid) != 1)
        ;
    if (status)
        fclose(status);
    parent.gid = gid;
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)parent.pid);
    parent.namespace = open(path, O_RDONLY | O_CLOEXEC);
    if (parent.namespace < 0 || fstat(parent.namespace, &its) || stat("/proc/self/ns/user", &ours))
        give_up("cannot look at the user namespace of process %d: %s", (int)parent.pid, strerror(errno));
    parent.has_namespace = its.st_ino != ours.st_ino;
    int depth = 0, around = parent.namespace;
    for (int inner = -1; (around = ioctl(around, NS_GET_PARENT)) >= 0; inner = around, depth++)
        if (inner >= 0)
            close(inner);
    if (depth >= MAX_DEPTH)
        give_up("process %d is a copy of a copy ..., %d deep: the kernel allows no more", (int)parent.pid, depth);
}

static void begin(const char *option, const char *first_uid, const char *uids)
{
    protect_from_signals();
    parent.first_uid = number_of(option, "FIRST_UID", first_uid);
    parent.uids = number_of(option, "UIDS", uids);
    creator = (int)syscall(SYS_PIDFD_OPEN, getppid(), 0);
    if (creator < 0)
        fail(EXIT_CANNOT_RUN, "cannot open the process that has started this one: %s", strerror(errno));
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0); /* what has been read is what has been asked */
}

/* Finds the process, before anything is done to it. */
static void find(const char *option, const char *pid, const char *start_time)
{
    parent.pid = (pid_t)number_of(option, "PID", pid);
    parent.instruction = thread_instruction(parent.pid);
    if (!process_is(parent.pid, number_of(option, "START_TIME", start_time)))
        fail(EXIT_NOT_FOUND, "cannot look at process %d: %s", (int)parent.pid, strerror(ESRCH));
}

/* What the creator has open. */
static int take(const char *word)
{
    int file = word ? (int)syscall(SYS_PIDFD_GETFD, creator, (int)number_of("--parent", "NUMBER", word), 0) : -1;
    if (file < 0)
        give_up("cannot take descriptor %s: %s", word ? word : "that is not named", strerror(errno));
    return file;
}

/* "DESCRIPTOR=NUMBER" or "join=NUMBER", of which this process gets what the creator has open as NUMBER. */
static struct passed parse_passed(const char *word)
{
    const char *equals = strchr(word, '=');
    if (!equals)
        give_up("--parent takes DESCRIPTOR=NUMBER, not %s", word);
    bool joins = !strncmp(word, "join=", strlen("join="));
    return (struct passed){take(equals + 1), joins ? -1 : (int)strtol(word, NULL, 10)};
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

/* Writes an image into what the creator has open as the first number, pages of data into the second. The others are what who goes on from it is given. */
static void answer_image(char **at)
{
    struct passed given[MAX_PASSED];
    size_t count = 0;
    int file = take(strtok_r(NULL, " \n", at));
    const char *into = strtok_r(NULL, " \n", at);
    int data = into && !strcmp(into, "-") ? -1 : take(into);
    for (char *word; (word = strtok_r(NULL, " \n", at)) && count < MAX_PASSED;)
        given[count++] = (struct passed){-1, (int)number_of("--parent", "DESCRIPTOR", word)};
    if (!parent.place_count)
        copy_lay_out(&parent, given, count);
    image_write(&parent, file, data);
    close(file);
    if (data >= 0)
        close(data);
    printf("image\n");
}

/* Makes copies, one for each line, or an image. */
static void serve(void)
{
    char line[512];
    while (is_asked() && fgets(line, sizeof line, stdin)) {
        struct passed passed[MAX_PASSED];
        size_t count = 0;
        char *at = NULL, *word = strtok_r(line, " \n", &at);
        if (word && !strcmp(word, "image")) {
            answer_image(&at);
            continue;
        }
        bool is_last = word && !strcmp(word, "last");
        if (is_last)
            word = strtok_r(NULL, " \n", &at);
        if (!word)
            give_up("--parent takes UID and descriptors");
        uint64_t uid = number_of("--parent", "UID", word);
        while ((word = strtok_r(NULL, " \n", &at))) {
            if (count == MAX_PASSED)
                give_up("--parent takes at most %d descriptors", MAX_PASSED);
            passed[count++] = parse_passed(word);
        }
        if (!parent.place_count)
            copy_lay_out(&parent, passed, count);
        pid_t pid = copy_make(&parent, uid, passed, count, is_last);
        for (size_t i = 0; i < count; i++)
            close(passed[i].here);
        printf("%d\n", (int)pid);
        if (is_last)
            exit(0);
    }
}

_Noreturn void parent_run(char **arguments)
{
    for (size_t i = 0; i < 4; i++)
        if (!arguments[i])
            fail(EXIT_CANNOT_RUN, "--parent takes PID START_TIME FIRST_UID UIDS");
    begin("--parent", arguments[2], arguments[3]);
    find("--parent", arguments[0], arguments[1]);
    give_up_with(parent.pid);
    stop_threads();
    set_options(parent.pid, TRACE_NEW | END_WITH_US);
    for (size_t i = 0; i < parent.thread_count; i++)
        describe(&parent.threads[i]);
    share_all_memory();
    look_at_user();
    descriptors_of(&parent, parent.pid);
    descriptors_list(&parent);
    if (parent.connection_count)
        give_up("process %d is still connected to somebody", (int)parent.pid);
    descriptors_open_channel(&parent);
    printf("ready\n");
    serve();
    exit(0); /* and with us the parent */
}

/* Copies the process, which stands still for as long as that takes. Its copy has one thread, and no connections. */
static void take_stem(void)
{
    struct stopped_thread *first = &parent.threads[0].thread;
    give_up_letting_go(&parent);
    stop_threads();
    printf("stopped\n"); /* what it is told from now on it finds when it goes on */
    set_options(parent.pid, TRACE_NEW);
    for (size_t i = 0; i < parent.thread_count; i++)
        describe(&parent.threads[i]);
    share_all_memory();
    /* Events are the process' own, which goes on to take what has happened: its copy is to hear of that, too. */
    descriptors_count_events(&parent);
    pid_t stem = copy_begin(&parent);
    set_options(stem, TRACE_NEW | END_WITH_US);
    for (size_t i = 0; i < parent.thread_count; i++)
        thread_go_on(&parent.threads[i].thread);
    thread_forget(parent.pid);
    give_up_with(stem);
    first->pid = stem;
}

/* The copy that stands still is what copies are made of. */
static void settle(void)
{
    descriptors_of(&parent, parent.threads[0].thread.pid);
    descriptors_list(&parent);
    descriptors_close_connections(&parent);
    descriptors_open_channel(&parent);
}

_Noreturn void fork_run(char **arguments)
{
    char line[64], *at = NULL;
    if (!arguments[0] || !arguments[1])
        fail(EXIT_CANNOT_RUN, "--fork takes FIRST_UID UIDS");
    begin("--fork", arguments[0], arguments[1]);
    if (!fgets(line, sizeof line, stdin))
        exit(0);
    char *pid = strtok_r(line, " \n", &at), *start_time = strtok_r(NULL, " \n", &at);
    if (!pid || !start_time)
        fail(EXIT_CANNOT_RUN, "--fork takes lines of PID START_TIME");
    find("--fork", pid, start_time);
    look_at_user();
    descriptors_of(&parent, parent.pid);
    descriptors_list(&parent); /* what cannot be copied is not stopped */
    descriptors_watch_events(&parent);
    printf("ready\n");
    if (!fgets(line, sizeof line, stdin))
        exit(0);
    take_stem();
    printf("%d\n", (int)parent.threads[0].thread.pid);
    settle();
    serve();
    thread_end_all(parent.pid, 0);
    exit(0);
}
