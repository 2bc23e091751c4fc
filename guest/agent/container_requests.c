#include "container_requests.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "container.h"
#include "deferred.h"
#include "first.h"
#include "identity.h"
#include "transfer.h"
#include "wire.h"

#define KILL_LIMIT_MS 10000
#define DISKS_LIMIT_MS 5000
#define DISKS_POLL_MS 10
#define MOUNT_FLAGS (MOUNT_READ_ONLY | MOUNT_NOSUID | MOUNT_NODEV | MOUNT_NOEXEC)

static uint32_t teardown_flags;

static bool is_disk_type(const char *fstype) { return fstype && (!strcmp(fstype, "erofs") || !strcmp(fstype, "ext4")); }

static bool take_mount(struct reader *r, struct container_mount *mount)
{
    mount->kind = (uint8_t)take_integer(r, 1);
    mount->disk = (uint8_t)take_integer(r, 1);
    mount->flags = take_u16(r);
    mount->mode = take_u32(r);
    mount->bytes = take_u64(r);
    mount->fstype = take_string_in_place(r);
    mount->target = take_string_in_place(r);
    if (r->bad || mount->target[0] != '/' || strlen(mount->target) > MAX_PATH_BYTES)
        return false;
    if (!mount->target[strspn(mount->target, "/")])
        return false; /* the root itself */
    if ((mount->flags & ~MOUNT_FLAGS) || mount->mode > 07777)
        return false;
    if (mount->kind == MOUNT_DISK)
        return mount->disk < VOLUME_DISKS && is_disk_type(mount->fstype);
    return mount->kind == MOUNT_TMPFS || mount->kind == MOUNT_DIRECTORY;
}

int run_container(const struct frame *frame)
{
    static struct container_spec spec;
    struct reader r = {frame->payload, frame->payload + frame->length, false};
    spec.flags = take_u32(&r);
    spec.upper_bytes = take_u64(&r);
    spec.shm_bytes = take_u64(&r);
    spec.fstype = take_string_in_place(&r);
    spec.mount_count = take_u16(&r);
    if (r.bad || spec.mount_count > MAX_CONTAINER_MOUNTS || !is_disk_type(spec.fstype))
        return -EINVAL;
    if (spec.flags & ~(uint32_t)(CONTAINER_READ_ONLY | CONTAINER_SCRATCH | CONTAINER_SAME_ROOT))
        return -EINVAL;
    for (size_t i = 0; i < spec.mount_count; i++)
        if (!take_mount(&r, &spec.mounts[i]))
            return -EINVAL;
    if (!reader_done(&r))
        return -EINVAL;
    if (container_exists())
        return -EALREADY;
    int error = identity_write_files();
    return error ? error : container_build(&spec);
}

static int disks_waited_for(uint32_t stream, int error)
{
    (void)stream;
    return error ? -EBUSY : 0;
}

/* A killed process may have left work to the kernel that still holds a file for a moment. */
static int unmount(uint32_t stream, int error)
{
    static const struct deferred_wait disks = {
        container_disks_are_free, DISKS_LIMIT_MS, DISKS_POLL_MS, disks_waited_for};
    container_release();
    if (error || container_disks_are_free())
        return error;
    return deferred_wait(stream, &disks);
}

/* All processes have ended. */
static int settle(uint32_t stream, int error)
{
    if (error)
        return error; /* nothing is forgotten: TEARDOWN may be tried again */
    first_forget();
    if (!container_has_writable_disks())
        return unmount(stream, 0);
    error = deferred_start_then(stream, container_settle, &teardown_flags, unmount);
    return error == DEFERRED ? DEFERRED : unmount(stream, error);
}

static bool all_ended(void) { return first_pid() == 0; }

int run_teardown(const struct frame *frame)
{
    static const struct deferred_wait killed = {.ready = all_ended, .limit_ms = KILL_LIMIT_MS, .next = settle};
    struct reader r = {frame->payload, frame->payload + frame->length, false};
    uint32_t flags = take_u32(&r);
    if (!reader_done(&r) || (flags & ~(uint32_t)TEARDOWN_TRIM))
        return -EINVAL;
    if (!container_exists())
        return -ENOENT;
    teardown_flags = flags;
    transfers_abandon(-ESTALE);
    if (all_ended())
        return settle(frame->stream, 0);
    kill(first_pid(), SIGKILL); /* the kernel ends the others, and they are reaped before it */
    return deferred_wait(frame->stream, &killed);
}
