/* Runs where nothing else is mapped: no library, no constants, no tables. All of it is in one section, which is copied. */
#pragma GCC optimize("no-tree-loop-distribute-patterns", "no-jump-tables", "no-stack-protector")
#pragma GCC target("general-regs-only")
#include "final.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define FINAL __attribute__((section("final")))
#define INLINE static inline __attribute__((always_inline))
#define END_OF_MEMORY 0x7ffffffff000
#define SET_THREAD_POINTER 0x1002 /* ARCH_SET_FS */
#define STATUS 126

INLINE long do_call(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
    long result;
    register uint64_t r10 __asm__("r10") = d;
    register uint64_t r8 __asm__("r8") = e;
    register uint64_t r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
}

/* Says which step failed, and ends. */
FINAL __attribute__((noinline)) static _Noreturn void end(struct final_plan *plan, char step)
{
    plan->failure[plan->failure_place] = step;
    do_call(SYS_write, 2, (uint64_t)(uintptr_t)plan->failure, plan->failure_bytes, 0, 0, 0);
    for (;;)
        do_call(SYS_exit_group, STATUS, 0, 0, 0, 0, 0);
}

INLINE long need(struct final_plan *plan, char step, long result)
{
    if (result < 0 && result > -4096)
        end(plan, step);
    return result;
}

INLINE void move(struct final_plan *plan, uint64_t from, uint64_t to, uint64_t bytes)
{
    need(plan, 's', do_call(SYS_mremap, from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to, 0));
}

/* What the kernel maps into every process is moved out of the way, and to where the process has it when all else is gone. */
INLINE void clear_memory(struct final_plan *plan)
{
    for (uint64_t i = 0; i < plan->special_count; i++)
        move(plan, plan->special[i].from, plan->special[i].by_way_of, plan->special[i].bytes);
    need(plan, 'u', do_call(SYS_munmap, 0, IMAGE_CODE_AT, 0, 0, 0, 0));
    need(plan, 'u', do_call(SYS_munmap, IMAGE_CODE_AT + IMAGE_CODE_BYTES, END_OF_MEMORY - IMAGE_CODE_AT - IMAGE_CODE_BYTES, 0, 0, 0, 0));
    for (uint64_t i = 0; i < plan->special_count; i++)
        move(plan, plan->special[i].by_way_of, plan->special[i].to, plan->special[i].bytes);
}

INLINE void map_memory(struct final_plan *plan)
{
    for (uint64_t i = 0; i < plan->mapping_count; i++) {
        const struct final_mapping *mapping = &plan->mappings[i];
        uint64_t protection = mapping->protection;
        need(plan, 'm', do_call(SYS_mmap, mapping->start, mapping->bytes, mapping->runs ? protection | PROT_WRITE : protection, mapping->flags,
                                (uint64_t)mapping->descriptor, mapping->offset));
        for (uint32_t j = mapping->first_run; j < mapping->first_run + mapping->runs; j++) {
            const struct image_run *run = &plan->runs[j];
            if (do_call(SYS_pread64, plan->image, run->start, run->bytes, run->offset, 0, 0) != (long)run->bytes)
                end(plan, 'r');
        }
        if (mapping->runs && !(protection & PROT_WRITE))
            need(plan, 'p', do_call(SYS_mprotect, mapping->start, mapping->bytes, protection, 0, 0, 0));
    }
}

/* What the kernel knows of a thread; then it goes on. */
FINAL __attribute__((noinline)) static _Noreturn void go_on(struct final_thread *thread)
{
    const struct rseq_place *rseq = &thread->rseq;
    do_call(SYS_set_robust_list, thread->robust_list, thread->robust_bytes, 0, 0, 0, 0);
    if (rseq->address)
        do_call(SYS_rseq, rseq->address, rseq->bytes, rseq->flags, rseq->signature, 0, 0);
    __asm__ volatile("mov %0, %%rsp\n\tmov %1, %%eax\n\tsyscall" : : "r"(thread->frame), "i"(SYS_rt_sigreturn) : "memory");
    __builtin_unreachable();
}

INLINE long start_thread(struct final_thread *thread)
{
    uint64_t flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |
                     CLONE_CHILD_CLEARTID;
    long result;
    register uint64_t tid_address __asm__("r10") = thread->tid_address;
    register uint64_t thread_pointer __asm__("r8") = thread->thread_pointer;
    register void (*then)(struct final_thread *) __asm__("r12") = go_on;
    register struct final_thread *with __asm__("r13") = thread;
    __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\tmov %%r13, %%rdi\n\tcall *%%r12\n1:"
                     : "=a"(result)
                     : "a"(SYS_clone), "D"(flags), "S"(thread->stack), "d"(thread->tid_address), "r"(tid_address), "r"(thread_pointer), "r"(then), "r"(with)
                     : "rcx", "r11", "memory");
    return result;
}

FINAL _Noreturn void final_run(struct final_plan *plan)
{
    clear_memory(plan);
    map_memory(plan);
    do_call(SYS_close_range, plan->image, UINT32_MAX, 0, 0, 0, 0);
    /* Without it the heap cannot grow where it is, and grows elsewhere. */
    do_call(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, (uint64_t)(uintptr_t)plan->layout, plan->layout_bytes, 0, 0);
    for (uint64_t i = 0; i < plan->signal_count; i++)
        need(plan, 'h', do_call(SYS_rt_sigaction, plan->signals[i].number, (uint64_t)(uintptr_t)&plan->signals[i].action, 0, sizeof(uint64_t), 0, 0));
    struct final_thread *first = &plan->threads[0];
    need(plan, 't', do_call(SYS_arch_prctl, SET_THREAD_POINTER, first->thread_pointer, 0, 0, 0, 0));
    *(volatile uint32_t *)(uintptr_t)first->tid_address = (uint32_t)need(plan, 't', do_call(SYS_set_tid_address, first->tid_address, 0, 0, 0, 0, 0));
    for (uint64_t i = 1; i < plan->thread_count; i++)
        need(plan, 'c', start_thread(&plan->threads[i]));
    go_on(first);
}
