#include "requests.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "connection.h"
#include "container_requests.h"
#include "deferred.h"
#include "files.h"
#include "identity.h"
#include "machine.h"
#include "object.h"
#include "process.h"
#include "session.h"
#include "transfer.h"

#define FREEZE_LIMIT_MS 2000
#define STOP_NEAR_NS 100000000 /* how long after a freeze the VM is expected to be stopped */
#define URGENT_NS 50000000 /* how long after a VM was made itself the agent's own work comes first */

static char path[PATH_MAX];
static int64_t stop_near_until_ns; /* CLOCK_MONOTONIC */
static int64_t calm_at_ns; /* 0: to be told after the first answer, before which nothing needs it */
static bool is_urgent;
static uint32_t frozen_in; /* epoch of the host connection whose freeze has made the identity pending */
static struct { /* what a child of deferred_start works on */
    uint32_t flags;
    uint64_t max_bytes;
} argument;

static int run_ping(const struct frame *frame, struct writer *result)
{
    if (frame->length > MAX_PING_BYTES)
        return -EMSGSIZE;
    put_bytes(result, frame->payload, frame->length);
    return 0;
}

/* EXEC, FILE_READ and FILE_WRITE: the stream names the object that they make. */
static int make_object(const struct frame *frame, struct reader *r, struct writer *result)
{
    int error = 0;
    uint8_t kind = frame->type == TYPE_EXEC        ? KIND_PROCESS
                   : frame->type == TYPE_FILE_READ ? KIND_FILE_READ
                                                   : KIND_FILE_WRITE;
    struct object *o = object_make(frame->stream >> 2, kind, &error);
    if (!o)
        return error;
    if (kind == KIND_PROCESS) {
        error = process_exec(o, frame->payload, frame->length);
        if (error > 0)
            put_u32(result, (uint32_t)error);
    } else {
        error = kind == KIND_FILE_READ ? transfer_read(o, r, result) : transfer_write(o, r);
    }
    if (error < 0)
        object_free(o);
    return error < 0 ? error : 0;
}

static int run_on_process(const struct frame *frame, struct reader *r)
{
    struct object *o = object_find(frame->stream >> 2);
    if (frame->type == TYPE_SIGNAL) {
        uint32_t signal = take_u32(r), scope = take_u32(r);
        if (!reader_done(r) || scope > 1)
            return -EINVAL;
        return o ? process_signal(o, signal, scope == 1) : -ENOENT;
    }
    uint16_t rows = take_u16(r), columns = take_u16(r);
    if (!reader_done(r))
        return -EINVAL;
    return o ? process_resize(o, rows, columns) : -ENOENT;
}

static int remove_in_child(void *unused, volatile uint64_t *result)
{
    (void)unused;
    (void)result;
    return files_remove(path, argument.flags);
}

static int run_on_files(const struct frame *frame, struct reader *r, struct writer *result)
{
    uint64_t cookie = frame->type == TYPE_FILE_LIST ? take_u64(r) : 0;
    uint32_t flags = frame->type == TYPE_FILE_LIST ? 0 : take_u32(r);
    uint32_t mode = frame->type == TYPE_FILE_MKDIR ? take_u32(r) : 0;
    uint32_t known = frame->type == TYPE_FILE_REMOVE ? REMOVE_RECURSIVE | REMOVE_MISSING_OK : 1;
    take_string(r, path, sizeof path);
    if (!reader_done(r) || flags & ~known)
        return -EINVAL;
    switch (frame->type) {
    case TYPE_FILE_STAT:
        return files_stat(path, flags, result);
    case TYPE_FILE_LIST:
        return files_list(path, cookie, result);
    case TYPE_FILE_MKDIR:
        return files_make_directory(path, flags, mode);
    default:
        if (!(flags & REMOVE_RECURSIVE))
            return files_remove(path, flags);
        argument.flags = flags; /* a large tree takes long */
        return deferred_start(frame->stream, remove_in_child, NULL, false);
    }
}

static int run_identity(struct reader *r)
{
    struct identity identity = {.realtime_ns = take_u64(r)};
    const uint8_t *entropy = take_bytes(r, sizeof identity.entropy);
    const uint8_t *machine_id = take_bytes(r, sizeof identity.machine_id);
    const uint8_t *mac = take_bytes(r, sizeof identity.mac);
    uint16_t zero = take_u16(r);
    take_string(r, identity.hostname, sizeof identity.hostname);
    if (!reader_done(r) || zero || !identity.hostname[0])
        return -EINVAL;
    memcpy(identity.entropy, entropy, sizeof identity.entropy);
    memcpy(identity.machine_id, machine_id, sizeof identity.machine_id);
    memcpy(identity.mac, mac, sizeof identity.mac);
    int error = identity_apply(&identity);
    if (error)
        return error;
    cgroup_state.identity_pending = false;
    calm_at_ns = 0;
    return 0;
}

static int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool request_stop_is_near(void)
{
    return cgroup_state.identity_pending && stop_near_until_ns && !deferred_busy() && monotonic_ns() < stop_near_until_ns;
}

/*
 * Whether nothing may take the CPU from the agent. QEMU announces the host's end of the port at each start of a VM, which wakes up a worker of
 * the kernel: that it runs after the first answer instead of before spares the way there and back.
 */
static void set_urgent(bool urgent)
{
    if (urgent == is_urgent || getpid() != 1)
        return;
    is_urgent = urgent;
    const struct sched_param priority = {.sched_priority = urgent ? 1 : 0};
    syscall(SYS_sched_setscheduler, 0, (urgent ? SCHED_FIFO : SCHED_BATCH) | SCHED_RESET_ON_FORK, &priority);
}

/*
 * Not at once: giving the CPU away is hundreds of blocks of code, which a clone would translate between its first answer and its first command.
 * No timer, which would be as many: an agent that nobody asks anything sleeps, whatever its policy.
 */
void request_calm(void)
{
    if (!is_urgent)
        return;
    int64_t now_ns = monotonic_ns();
    if (!calm_at_ns)
        calm_at_ns = now_ns + URGENT_NS;
    if (now_ns >= calm_at_ns)
        set_urgent(false);
}

static int frozen_now(uint32_t stream, int error)
{
    (void)stream;
    if (!error) {
        stop_near_until_ns = monotonic_ns() + STOP_NEAR_NS;
        calm_at_ns = stop_near_until_ns;
        set_urgent(true);
    }
    return error;
}

static int run_freeze(const struct frame *frame)
{
    static const struct deferred_wait frozen = {
        .ready = cgroup_is_frozen, .limit_ms = FREEZE_LIMIT_MS, .next = frozen_now};
    if (!cgroup_state.identity_pending)
        frozen_in = session_epoch();
    cgroup_state.identity_pending = true;
    identity_prepare();
    int error = cgroup_freeze();
    if (error || cgroup_is_frozen())
        return frozen_now(frame->stream, error);
    return deferred_wait(frame->stream, &frozen);
}

/*
 * With a time the VM goes on as the one that it was. A copy of it cannot: it hears of its host on another connection.
 */
static int run_thaw(const struct frame *frame, struct reader *r)
{
    if (!frame->length)
        return cgroup_state.identity_pending ? -EPERM : cgroup_thaw();
    uint64_t realtime_ns = take_u64(r);
    if (!reader_done(r) || !realtime_ns)
        return -EINVAL;
    if (cgroup_state.identity_pending && frozen_in != session_epoch())
        return -EPERM;
    int error = clock_set_realtime(realtime_ns);
    if (error)
        return error;
    cgroup_state.identity_pending = false;
    return cgroup_thaw();
}

static int run_time(struct reader *r, struct writer *result)
{
    struct timespec realtime, monotonic;
    uint64_t realtime_ns = take_u64(r);
    if (!reader_done(r))
        return -EINVAL;
    int error = realtime_ns ? clock_set_realtime(realtime_ns) : 0;
    clock_gettime(CLOCK_REALTIME, &realtime);
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    put_u64(result, (uint64_t)realtime.tv_sec * 1000000000u + (uint64_t)realtime.tv_nsec);
    put_u64(result, (uint64_t)monotonic.tv_sec * 1000000000u + (uint64_t)monotonic.tv_nsec);
    return error;
}

static int run_limits(struct reader *r)
{
    uint64_t memory = take_u64(r), pids = take_u64(r);
    uint32_t cpu = take_u32(r), zero = take_u32(r);
    return reader_done(r) && !zero ? cgroup_set_limits(memory, pids, cpu) : -EINVAL;
}

static int run_trim(const struct frame *frame, struct reader *r)
{
    argument.max_bytes = take_u64(r);
    if (!reader_done(r))
        return -EINVAL;
    return deferred_start(frame->stream, machine_trim, &argument.max_bytes, true);
}

static int run_without_payload(const struct frame *frame, struct writer *result)
{
    if (frame->length)
        return -EINVAL;
    switch (frame->type) {
    case TYPE_FREEZE:
        return run_freeze(frame);
    case TYPE_STATS:
        machine_stats(result);
        return 0;
    default:
        return deferred_start(frame->stream, machine_sync, NULL, false);
    }
}

int request_run(const struct frame *frame, struct writer *result)
{
    struct reader r = {frame->payload, frame->payload + frame->length, false};
    switch (frame->type) {
    case TYPE_PING:
        return run_ping(frame, result);
    case TYPE_EXEC:
    case TYPE_FILE_READ:
    case TYPE_FILE_WRITE:
        return make_object(frame, &r, result);
    case TYPE_CONNECT:
        return connection_open(frame);
    case TYPE_SIGNAL:
    case TYPE_RESIZE:
        return run_on_process(frame, &r);
    case TYPE_FILE_STAT:
    case TYPE_FILE_LIST:
    case TYPE_FILE_MKDIR:
    case TYPE_FILE_REMOVE:
        return run_on_files(frame, &r, result);
    case TYPE_IDENTITY:
        return run_identity(&r);
    case TYPE_CONTAINER:
        return run_container(frame);
    case TYPE_TEARDOWN:
        return run_teardown(frame);
    case TYPE_TIME:
        return run_time(&r, result);
    case TYPE_TRIM:
        return run_trim(frame, &r);
    case TYPE_LIMITS:
        return run_limits(&r);
    case TYPE_THAW:
        return run_thaw(frame, &r);
    case TYPE_FREEZE:
    case TYPE_STATS:
    case TYPE_SYNC:
        return run_without_payload(frame, result);
    default:
        return -ENOSYS;
    }
}
