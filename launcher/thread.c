#include "thread.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEIZE 0x4206 /* PTRACE_SEIZE and so on, Linux 3.4 and 3.11 */
#define INTERRUPT 0x4207
#define GET_SIGNALS 0x420a
#define SET_SIGNALS 0x420b
#define EVENT_STOP 128
/* What a system call that was interrupted "returns": the kernel begins it again, unless the registers are changed meanwhile. */
#define RESTART_SYS 512
#define RESTART_NO_INTERRUPT 513
#define RESTART_NO_HANDLER 514
#define RESTART_BLOCK 516
#define SYSCALL_BYTES 2
#define START_TIME_FIELD 22
#define MAX_TOLD 256
#define MAX_VDSO_BYTES 65536

/* What was told of threads while another one was waited for. */
static struct {
    pid_t pid;
    int status;
} told[MAX_TOLD];
static size_t told_count;

static void keep(pid_t pid, int status)
{
    if (told_count < MAX_TOLD) {
        told[told_count].pid = pid;
        told[told_count++].status = status;
    }
}

/* Takes what was told of a thread; its end stays known. */
static bool take(pid_t pid, int *status)
{
    for (size_t i = 0; i < told_count; i++) {
        if (told[i].pid != pid)
            continue;
        *status = told[i].status;
        if (WIFSTOPPED(*status))
            told[i] = told[--told_count];
        return true;
    }
    return false;
}

/* Waits for all at once: the first thread of a process that was killed is not told of before all its others have been waited for. */
int thread_next_stop(pid_t pid)
{
    int status;
    while (!take(pid, &status)) {
        pid_t one = waitpid(-1, &status, __WALL);
        if (one > 0)
            keep(one, status);
        else if (errno != EINTR)
            return -ESRCH;
    }
    return WIFSTOPPED(status) ? status : -ESRCH;
}

bool thread_has_ended(pid_t pid)
{
    int status;
    for (pid_t one; (one = waitpid(-1, &status, __WALL | WNOHANG)) > 0;)
        keep(one, status);
    for (size_t i = 0; i < told_count; i++)
        if (told[i].pid == pid && !WIFSTOPPED(told[i].status))
            return true;
    return false;
}

/* The process that a thread is one of; 0 if it is gone. */
static pid_t process_of(pid_t thread)
{
    char path[64], line[128];
    int pid = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)thread);
    FILE *status = fopen(path, "re");
    while (status && !pid && fgets(line, sizeof line, status))
        if (sscanf(line, "Tgid: %d", &pid) != 1)
            pid = 0;
    if (status)
        fclose(status);
    return pid;
}

void thread_forget(pid_t pid)
{
    size_t kept = 0;
    for (size_t i = 0; i < told_count; i++) {
        pid_t process = process_of(told[i].pid);
        if (process && process != pid)
            told[kept++] = told[i];
    }
    told_count = kept;
}

pid_t thread_end_all(pid_t pid, pid_t copy)
{
    int status;
    for (size_t i = 0; i < told_count && !copy; i++)
        copy = process_of(told[i].pid) == pid ? 0 : process_of(told[i].pid);
    if (pid)
        kill(pid, SIGKILL);
    for (;;) {
        if (copy)
            kill(copy, SIGKILL);
        pid_t one = waitpid(-1, &status, __WALL);
        if (one < 0 && errno != EINTR)
            return copy;
        if (one > 0 && WIFSTOPPED(status) && process_of(one) != pid)
            copy = process_of(one);
    }
}

uint64_t thread_instruction(pid_t pid)
{
    static uint8_t code[MAX_VDSO_BYTES];
    char path[64], line[512];
    uint64_t start = 0, end = 0, found = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    while (maps && !end && fgets(line, sizeof line, maps))
        if (strstr(line, "[vdso]") && sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) != 2)
            end = 0;
    if (maps)
        fclose(maps);
    snprintf(path, sizeof path, "/proc/%d/mem", (int)pid);
    int memory = open(path, O_RDONLY | O_CLOEXEC);
    size_t length = end - start < sizeof code ? (size_t)(end - start) : sizeof code;
    ssize_t got = memory < 0 || !end ? 0 : pread(memory, code, length, (off_t)start);
    for (ssize_t at = 0; !found && at + 1 < got; at++)
        if (code[at] == 0x0f && code[at + 1] == 0x05)
            found = start + (uint64_t)at;
    if (memory >= 0)
        close(memory);
    return found;
}

/* As the kernel would have done it, had the registers not been changed under it. */
static void prepare_restart(struct user_regs_struct *registers)
{
    if ((long long)registers->orig_rax < 0)
        return;
    switch (-(long long)registers->rax) {
    case RESTART_SYS:
    case RESTART_NO_INTERRUPT:
    case RESTART_NO_HANDLER:
        registers->rax = registers->orig_rax;
        registers->rip -= SYSCALL_BYTES;
        break;
    case RESTART_BLOCK: /* what it would go on with is the kernel's, and overwritten by now */
        registers->rax = (unsigned long long)-EINTR;
        break;
    }
    registers->orig_rax = (unsigned long long)-1;
}

/* What proc(5) has of a process or thread, behind its name, which may have anything in it. Returns NULL without one. */
static const char *stat_of(const char *path)
{
    static char text[1024];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return NULL;
    text[length] = 0;
    return strrchr(text, ')');
}

bool thread_is_dead(pid_t pid, pid_t thread)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)pid, (int)thread);
    const char *at = stat_of(path);
    return !at || strchr("ZXx", at[2]); /* ") S ..." */
}

bool process_is(pid_t pid, uint64_t start_time)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    const char *at = stat_of(path);
    for (int field = 2; at && field < START_TIME_FIELD; field++)
        at = strchr(at + 1, ' ');
    return at && strtoull(at + 1, NULL, 10) == start_time;
}

int thread_stop(struct stopped_thread *thread, pid_t pid)
{
    int error = thread_begin_stop(thread, pid);
    return error ? error : thread_end_stop(thread);
}

int thread_begin_stop(struct stopped_thread *thread, pid_t pid)
{
    thread->pid = pid;
    return ptrace(SEIZE, pid, NULL, NULL) || ptrace(INTERRUPT, pid, NULL, NULL) ? -errno : 0;
}

int thread_end_stop(struct stopped_thread *thread)
{
    uint64_t all = ~(uint64_t)0;
    pid_t pid = thread->pid;
    int status = 0;
    for (;;) {
        status = thread_next_stop(pid);
        if (status < 0)
            return status;
        if (status >> 16 == EVENT_STOP)
            break;
        ptrace(PTRACE_CONT, pid, NULL, (void *)(long)WSTOPSIG(status)); /* a signal of its own came first */
    }
    if (thread->instruction && !ptrace(PTRACE_GETREGS, pid, NULL, &thread->registers) &&
        !ptrace(GET_SIGNALS, pid, (void *)sizeof thread->signals, &thread->signals) &&
        !ptrace(SET_SIGNALS, pid, (void *)sizeof all, &all)) {
        prepare_restart(&thread->registers);
        return 0;
    }
    int error = thread->instruction ? -errno : -ENOEXEC;
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    return error;
}

long thread_call(struct stopped_thread *thread, long number, uint64_t first, uint64_t second, uint64_t third)
{
    return thread_call_with(thread, number, (uint64_t[MAX_ARGUMENTS]){first, second, third});
}

long thread_call_with(struct stopped_thread *thread, long number, const uint64_t arguments[MAX_ARGUMENTS])
{
    struct user_regs_struct registers = thread->registers;
    registers.orig_rax = (unsigned long long)-1;
    registers.rax = (unsigned long long)number;
    registers.rdi = arguments[0];
    registers.rsi = arguments[1];
    registers.rdx = arguments[2];
    registers.r10 = arguments[3];
    registers.r8 = arguments[4];
    registers.rip = thread->instruction;
    if (ptrace(PTRACE_SETREGS, thread->pid, NULL, &registers))
        return -ESRCH;
    /* One step is the call, whole; what comes before (a stop of the whole process, a thread that is being made) is an event. */
    int status;
    do {
        status = ptrace(PTRACE_SINGLESTEP, thread->pid, NULL, NULL) ? -ESRCH : thread_next_stop(thread->pid);
        if (status < 0 || ptrace(PTRACE_GETREGS, thread->pid, NULL, &registers))
            return -ESRCH;
    } while (status >> 16 || registers.rip != thread->instruction + SYSCALL_BYTES);
    return (long)registers.rax;
}

void thread_go_on(struct stopped_thread *thread)
{
    ptrace(PTRACE_SETREGS, thread->pid, NULL, &thread->registers);
    ptrace(SET_SIGNALS, thread->pid, (void *)sizeof thread->signals, &thread->signals);
    ptrace(PTRACE_DETACH, thread->pid, NULL, NULL);
}
