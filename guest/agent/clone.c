#include "clone.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#define CLONE3_INTO_CGROUP 0x200000000ull
#define CHILD_STACK_BYTES 32768
#define GRANDCHILD_STACK_BYTES 16384

struct clone3_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

static uint8_t child_stack[CHILD_STACK_BYTES] __attribute__((aligned(64)));
static uint8_t grandchild_stack[GRANDCHILD_STACK_BYTES] __attribute__((aligned(64)));

#ifdef __x86_64__
/* clone3 with a stack of the child's own: the child calls the entry and never returns here. */
static long clone3_onto_stack(struct clone3_arguments *arguments, void (*child_entry)(void))
{
    long result;
    register void (*entry)(void) __asm__("r8") = child_entry;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "call *%%r8\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(result)
                     : "0"((long)SYS_clone3), "D"(arguments), "S"(sizeof *arguments), "r"(entry)
                     : "rcx", "r11", "memory");
    return result;
}
#else
static long clone3_onto_stack(struct clone3_arguments *arguments, void (*child_entry)(void))
{
    (void)arguments;
    (void)child_entry;
    return -ENOSYS;
}
#endif

static int plain_entry(void *request)
{
    ((const struct clone_request *)request)->entry();
    return 127;
}

pid_t clone_child(struct clone_request *request)
{
    uint8_t *stack = request->grandchild ? grandchild_stack : child_stack;
    size_t size = request->grandchild ? sizeof grandchild_stack : sizeof child_stack;
    uint64_t flags = request->flags | CLONE_VM | CLONE_VFORK;
    struct clone3_arguments arguments = {
        .flags = flags | (request->cgroup_fd >= 0 ? CLONE3_INTO_CGROUP : 0),
        .exit_signal = SIGCHLD,
        .stack = (uint64_t)(uintptr_t)stack,
        .stack_size = size,
        .cgroup = (uint64_t)(request->cgroup_fd >= 0 ? request->cgroup_fd : 0),
    };
    request->must_join = false;
    long pid = clone3_onto_stack(&arguments, request->entry);
    if (pid == -ENOSYS || pid == -EINVAL || pid == -E2BIG || pid == -EOPNOTSUPP || pid == -EPERM) {
        request->must_join = request->cgroup_fd >= 0;
        pid = clone(plain_entry, stack + size, (int)flags | SIGCHLD, request);
        if (pid < 0)
            pid = -errno;
    }
    return (pid_t)pid;
}

int clone_join_cgroup(int cgroup_fd)
{
    int fd = openat(cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int result = write(fd, "0", 1) == 1 ? 0 : -1;
    close(fd);
    return result;
}
