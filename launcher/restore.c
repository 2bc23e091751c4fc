/* Becomes the process of an image: all that can be done while this program is still there; the rest is in final.c. */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "final.h"
#include "options.h"

#define FINAL_STACK_BYTES 16384
#define STATE_ALIGNMENT 64
#define SOFTWARE_BYTES_AT 464 /* in the extended state: what the kernel wants to know of one that comes from a frame */
#define STATE_MAGIC 0x46505853 /* FP_XSTATE_MAGIC1 and 2 */
#define STATE_END_MAGIC 0x46505845
#define HAS_STATE 7              /* UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS */
#define USER_SEGMENTS 0x002b000000000033

struct software_bytes {
    uint32_t magic, whole_bytes;
    uint64_t features;
    uint32_t bytes, pad[7];
};

/* Tables of the image, as they lie in memory. */
static const struct image_header *header;
static const struct image_file *files;
static const struct image_mapping *mappings;
static const struct image_run *runs;
static const struct image_descriptor *descriptors;
static const struct image_signal *signals;
static const struct image_thread *threads;
static int image, file_descriptors[MAX_IMAGE_FILES];

static uint8_t *room, *room_end; /* memory that stays */

__attribute__((format(printf, 1, 2))) static _Noreturn void stale(const char *format, ...)
{
    char why[640];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    fail(EXIT_STALE_IMAGE, "cannot go on from the image: %s", why);
}

/* Some of the memory that stays. */
static void *take_room(size_t bytes, size_t alignment)
{
    uint8_t *start = (uint8_t *)(((uintptr_t)room + alignment - 1) & ~(alignment - 1));
    if (start + bytes > room_end)
        stale("it needs more than %d bytes", IMAGE_CODE_BYTES);
    room = start + bytes;
    return start;
}

static void *keep(const void *bytes, size_t count)
{
    return memcpy(take_room(count ? count : 1, sizeof(uint64_t)), bytes, count);
}

static void open_tables(int file)
{
    struct stat status;
    char boot_id[40] = "";
    if (fstat(file, &status) || (size_t)status.st_size < sizeof *header)
        stale("it is too short");
    header = mmap(NULL, sizeof *header, PROT_READ, MAP_PRIVATE, file, 0);
    if (header == MAP_FAILED)
        stale("%s", strerror(errno));
    if (strncmp(header->magic, IMAGE_MAGIC, sizeof header->magic))
        stale("it is none of this launcher's");
    if (!image_boot_id(boot_id) || strncmp(boot_id, header->boot_id, sizeof boot_id))
        stale("it was made before the host was started");
    if ((uint64_t)status.st_size < header->bytes)
        stale("it is too short");
    const uint8_t *at = mmap(NULL, header->bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (at == MAP_FAILED)
        stale("%s", strerror(errno));
    files = (const void *)(at += sizeof *header);
    mappings = (const void *)(at += header->files * sizeof *files);
    runs = (const void *)(at += header->mappings * sizeof *mappings);
    descriptors = (const void *)(at += header->runs * sizeof *runs);
    signals = (const void *)(at += header->descriptors * sizeof *descriptors);
    threads = (const void *)(at + header->signals * sizeof *signals);
}

static bool is_file(int file, const struct image_file *wanted)
{
    struct stat status;
    return !fstat(file, &status) && status.st_dev == wanted->device && status.st_ino == wanted->inode && (uint64_t)status.st_size == wanted->bytes &&
           status.st_mtim.tv_sec == wanted->changed_s && status.st_mtim.tv_nsec == wanted->changed_ns;
}

/* Opens the files that the process has; its own descriptors are below `first`. */
static void open_files(int first, int base)
{
    for (uint32_t i = 0; i < header->files; i++) {
        const struct image_file *wanted = &files[i];
        bool is_base = base >= 0 && is_file(base, wanted);
        int file = is_base ? base : open(wanted->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (file < 0)
            stale("cannot open %s: %s", wanted->path, strerror(errno));
        if (!is_file(file, wanted))
            stale("%s is another file by now", wanted->path);
        file_descriptors[i] = fcntl(file, F_DUPFD_CLOEXEC, first);
        if (file_descriptors[i] < 0)
            stale("cannot have %s open: %s", wanted->path, strerror(errno));
        if (!is_base)
            close(file);
    }
    if (base >= 0)
        close(base);
}

/* One end of a connection, which the other end of has been closed. */
static int make_hung_up(void)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return -1;
    close(ends[1]);
    return ends[0];
}

static int make_descriptor(const struct image_descriptor *wanted)
{
    switch (wanted->kind) {
    case AN_EVENT:
        return eventfd((unsigned)wanted->value, wanted->flags);
    case AN_EPOLL:
        return epoll_create1(EPOLL_CLOEXEC);
    case HUNG_UP:
        return make_hung_up();
    case A_SIGNALFD:
        return (int)syscall(SYS_signalfd4, -1, &wanted->value, sizeof wanted->value, wanted->flags & (O_NONBLOCK | O_CLOEXEC));
    default:
        return open(files[wanted->file].path, O_RDONLY | O_CLOEXEC);
    }
}

static void open_descriptors(void)
{
    for (uint32_t i = 0; i < header->descriptors; i++) {
        const struct image_descriptor *wanted = &descriptors[i];
        if (wanted->kind == GIVEN) {
            if (fcntl(wanted->number, F_GETFD) < 0)
                stale("descriptor %d has to be open", wanted->number);
            continue;
        }
        int made = make_descriptor(wanted);
        if (made < 0 || (made != wanted->number && dup3(made, wanted->number, O_CLOEXEC) < 0))
            stale("cannot make descriptor %d: %s", wanted->number, strerror(errno));
        if (made != wanted->number)
            close(made);
    }
}

/* Where the kernel has mapped what it maps into every process, and where that has to be. */
static void plan_specials(struct final_plan *plan)
{
    char line[256], name[32];
    uint64_t start, end;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %*s %*s %*s %31s", &start, &end, name) != 3 || strncmp(name, "[v", 2) || !strcmp(name, "[vsyscall]"))
            continue;
        const char *found = NULL;
        for (uint32_t i = 0; i < header->specials; i++) {
            if (strcmp(header->special[i].name, name) || header->special[i].bytes != end - start)
                continue;
            found = header->special[i].name;
            uint64_t way = (uint64_t)(uintptr_t)take_room(end - start, IMAGE_PAGE);
            plan->special[plan->special_count++] = (struct final_special){start, way, header->special[i].start, end - start};
        }
        if (!found)
            stale("the kernel's %s is another one", name);
    }
    if (maps)
        fclose(maps);
    if (plan->special_count != header->specials)
        stale("the kernel does not map what it did");
}

static void plan_mappings(struct final_plan *plan)
{
    struct final_mapping *planned = take_room(header->mappings * sizeof *planned, sizeof(uint64_t));
    plan->mappings = planned;
    plan->mapping_count = header->mappings;
    for (uint32_t i = 0; i < header->mappings; i++) {
        const struct image_mapping *wanted = &mappings[i];
        if (wanted->start < IMAGE_CODE_AT + IMAGE_CODE_BYTES && wanted->end > IMAGE_CODE_AT)
            stale("it has memory at %" PRIx64, wanted->start);
        bool is_nothing = wanted->file == FROM_NOTHING;
        planned[i] = (struct final_mapping){
            .start = wanted->start,
            .bytes = wanted->end - wanted->start,
            .offset = wanted->offset,
            .descriptor = is_nothing ? -1 : wanted->file == FROM_IMAGE ? image : file_descriptors[wanted->file],
            .protection = wanted->protection,
            .flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE | (is_nothing ? MAP_ANONYMOUS : 0) | (wanted->grows && is_nothing ? MAP_GROWSDOWN : 0),
            .first_run = wanted->first_run,
            .runs = wanted->runs,
        };
    }
    plan->runs = keep(runs, header->runs * sizeof *runs);
}

/* The frame of a signal handler that was called where the thread stands still. */
static uint64_t make_frame(const struct image_thread *thread)
{
    const struct user_regs_struct *registers = &thread->registers;
    struct software_bytes software = {.magic = STATE_MAGIC, .bytes = (uint32_t)thread->extended_bytes};
    const uint32_t end = STATE_END_MAGIC;
    uint8_t *state = take_room(thread->extended_bytes + sizeof end, STATE_ALIGNMENT);
    memcpy(state, thread->extended, thread->extended_bytes);
    memcpy(&software.features, state + SOFTWARE_BYTES_AT, sizeof software.features);
    software.whole_bytes = software.bytes + sizeof end;
    memcpy(state + SOFTWARE_BYTES_AT, &software, sizeof software);
    memcpy(state + thread->extended_bytes, &end, sizeof end);
    ucontext_t *context = take_room(sizeof *context, sizeof(uint64_t));
    memset(context, 0, sizeof *context);
    context->uc_flags = HAS_STATE;
    context->uc_stack.ss_flags = SS_DISABLE;
    const unsigned long long all[] = {registers->r8,  registers->r9,  registers->r10, registers->r11, registers->r12, registers->r13,
                                      registers->r14, registers->r15, registers->rdi, registers->rsi, registers->rbp, registers->rbx,
                                      registers->rdx, registers->rax, registers->rcx, registers->rsp, registers->rip, registers->eflags,
                                      USER_SEGMENTS};
    memcpy(context->uc_mcontext.gregs, all, sizeof all);
    context->uc_mcontext.fpregs = (void *)state;
    memcpy(&context->uc_sigmask, &thread->signals, sizeof thread->signals);
    return (uint64_t)(uintptr_t)context;
}

static void plan_threads(struct final_plan *plan)
{
    plan->thread_count = header->threads;
    plan->threads = take_room(header->threads * sizeof *plan->threads, sizeof(uint64_t));
    for (uint32_t i = 0; i < header->threads; i++) {
        const struct image_thread *thread = &threads[i];
        uint8_t *stack = take_room(THREAD_STACK_BYTES, 16);
        plan->threads[i] = (struct final_thread){
            .tid_address = thread->tid_address,
            .robust_list = thread->robust_list,
            .robust_bytes = thread->robust_bytes,
            .thread_pointer = thread->registers.fs_base,
            .frame = make_frame(thread),
            .stack = (uint64_t)(uintptr_t)(stack + THREAD_STACK_BYTES),
            .rseq = thread->rseq,
        };
    }
}

/* Code first, its own pages; then what it works with; its stack is what is left. */
static struct final_plan *make_plan(void (**code)(struct final_plan *))
{
    static const char failure[] = "mayfly-launcher: cannot go on from the image: step ?\n";
    size_t code_bytes = (size_t)(__stop_final - __start_final);
    uint8_t *base = mmap((void *)IMAGE_CODE_AT, IMAGE_CODE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (base != (void *)IMAGE_CODE_AT)
        stale("no place for what goes on: %s", strerror(errno));
    room = base;
    room_end = base + IMAGE_CODE_BYTES;
    uint8_t *copied = take_room(code_bytes, IMAGE_PAGE);
    memcpy(copied, __start_final, code_bytes);
    room = copied + ((code_bytes + IMAGE_PAGE - 1) & ~(size_t)(IMAGE_PAGE - 1));
    if (mprotect(copied, (size_t)(room - copied), PROT_READ | PROT_EXEC))
        stale("%s", strerror(errno));
    *code = (void (*)(struct final_plan *))(uintptr_t)(copied + ((uintptr_t)final_run - (uintptr_t)__start_final));
    struct final_plan *plan = take_room(sizeof *plan, sizeof(uint64_t));
    memcpy(plan->failure, failure, sizeof failure);
    plan->failure_bytes = sizeof failure - 1;
    plan->failure_place = sizeof failure - 3;
    return plan;
}

_Noreturn void image_become(int file, int base)
{
    void (*code)(struct final_plan *);
    int highest = file > base ? file : base;
    open_tables(file);
    for (uint32_t i = 0; i < header->descriptors; i++)
        highest = descriptors[i].number > highest ? descriptors[i].number : highest;
    image = fcntl(file, F_DUPFD_CLOEXEC, highest + 1);
    if (image < 0)
        stale("cannot have it open: %s", strerror(errno));
    open_files(image + 1, base);
    close(file);
    open_descriptors();
    struct final_plan *plan = make_plan(&code);
    plan->image = (uint64_t)image;
    plan_specials(plan);
    plan_mappings(plan);
    plan_threads(plan);
    plan->signals = keep(signals, header->signals * sizeof *signals);
    plan->signal_count = header->signals;
    plan->layout = keep(&header->layout, sizeof header->layout);
    plan->layout_bytes = sizeof header->layout;
    prctl(PR_SET_NAME, header->name, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    const uint64_t every = ~(uint64_t)0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &every, NULL, sizeof every);
    uint8_t *stack = take_room(FINAL_STACK_BYTES, 16);
    __asm__ volatile("mov %%rcx, %%rsp\n\txor %%ebp, %%ebp\n\tcall *%%rax" : : "c"(stack + FINAL_STACK_BYTES), "D"(plan), "a"(code) : "memory");
    __builtin_unreachable();
}
