#include "transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "files.h"

#define PUMP_BYTES 65536u
#define RENAME_WITHOUT_REPLACING 1u
#define TEMPORARY_ATTEMPTS 100

static void end_transfer(struct object *o, int error)
{
    if (o->file_fd >= 0)
        close(o->file_fd);
    if (o->parent_fd >= 0) {
        if (o->temporary[0])
            unlinkat(o->parent_fd, o->temporary, 0);
        close(o->parent_fd);
    }
    o->file_fd = o->parent_fd = -1;
    o->out[0].readable = false;
    o->out[0].ended = true;
    o->exited = true;
    o->code = error ? -1 : 0;
    o->error = -error;
    in_discard(&o->in);
}

void transfers_abandon(int error)
{
    uint64_t used = objects_used;
    for (struct object *o; (o = object_next(&used));)
        if (o->kind != KIND_PROCESS && !o->exited)
            end_transfer(o, error);
}

void transfer_release(struct object *o) { end_transfer(o, 0); }

int transfer_read(struct object *o, struct reader *payload, struct writer *result)
{
    char path[PATH_MAX];
    struct stat st;
    o->file_offset = take_u64(payload);
    o->file_left = take_u64(payload);
    uint32_t flags = take_u32(payload);
    take_string(payload, path, sizeof path);
    if (!reader_done(payload) || flags || o->file_offset > INT64_MAX)
        return -EINVAL;
    int fd = files_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return fd;
    int error = fstat(fd, &st) ? -errno : S_ISDIR(st.st_mode) ? -EISDIR : S_ISREG(st.st_mode) ? 0 : -EINVAL;
    if (error) {
        close(fd);
        return error;
    }
    if (o->file_left > INT64_MAX - o->file_offset)
        o->file_left = INT64_MAX - o->file_offset;
    o->file_fd = fd;
    o->out[0].readable = true;
    o->out[1].ended = true;
    put_u64(result, (uint64_t)st.st_size);
    put_u32(result, st.st_mode);
    return 0;
}

bool transfer_pump(struct object *o)
{
    struct out_stream *s = &o->out[0];
    if (o->kind != KIND_FILE_READ || !s->readable || out_room(s) == 0)
        return false;
    size_t limit = o->file_left < PUMP_BYTES ? (size_t)o->file_left : PUMP_BYTES;
    ssize_t n = limit ? out_fill(s, o->file_fd, limit, (int64_t)o->file_offset) : 0;
    if (n > 0) {
        o->file_offset += (uint64_t)n;
        o->file_left -= (uint64_t)n;
        return true;
    }
    if (n != -EINTR)
        end_transfer(o, (int)n);
    return true;
}

/* Makes a file of a name of its own beside the one to be written. */
static int open_temporary(struct object *o)
{
    for (unsigned attempt = 0; attempt < TEMPORARY_ATTEMPTS; attempt++) {
        snprintf(o->temporary, sizeof o->temporary, ".mayfly-%x-%u", (unsigned)o->id, attempt);
        o->file_fd = openat(o->parent_fd, o->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (o->file_fd >= 0)
            return 0;
        if (errno != EEXIST)
            break;
    }
    o->temporary[0] = 0;
    return -errno;
}

static int open_append(struct object *o, const char *path, uint32_t mode, bool *made)
{
    struct stat st;
    uint64_t flags = O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY;
    o->file_fd = o->flags & WRITE_EXCLUSIVE ? -ENOENT : files_open(path, flags, 0);
    *made = o->file_fd == -ENOENT;
    if (*made)
        o->file_fd = files_open(path, flags | O_CREAT | (o->flags & WRITE_EXCLUSIVE ? O_EXCL : 0), mode);
    if (o->file_fd < 0)
        return o->file_fd;
    return fstat(o->file_fd, &st) ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
}

/* Owner before mode: changing the owner clears the set-id bits. */
static int set_owner_and_mode(int fd, uint32_t uid, uint32_t gid, uint32_t mode)
{
    if (geteuid() == 0 && fchown(fd, uid, gid))
        return -errno;
    return fchmod(fd, mode & 07777) ? -errno : 0;
}

static int open_target(struct object *o, const char *path, uint32_t mode, uint32_t uid, uint32_t gid)
{
    struct stat st;
    bool made = true;
    o->parent_fd = files_open_parent(path, (o->flags & WRITE_PARENTS) != 0, o->name);
    if (o->parent_fd < 0)
        return o->parent_fd == -EBUSY ? -EISDIR : o->parent_fd;
    if (!fstatat(o->parent_fd, o->name, &st, AT_SYMLINK_NOFOLLOW)) {
        if (S_ISDIR(st.st_mode))
            return -EISDIR;
        if (o->flags & WRITE_EXCLUSIVE)
            return -EEXIST;
    }
    int error = o->flags & WRITE_APPEND ? open_append(o, path, mode & 07777, &made) : open_temporary(o);
    if (!error && made)
        error = set_owner_and_mode(o->file_fd, uid, gid, mode);
    return error;
}

int transfer_write(struct object *o, struct reader *payload)
{
    char path[PATH_MAX];
    o->flags = take_u32(payload);
    uint32_t mode = take_u32(payload), uid = take_u32(payload), gid = take_u32(payload);
    take_string(payload, path, sizeof path);
    if (!reader_done(payload) || o->flags & ~(uint32_t)(WRITE_APPEND | WRITE_EXCLUSIVE | WRITE_PARENTS))
        return -EINVAL;
    o->out[0].ended = o->out[1].ended = true;
    int error = open_target(o, path, mode, uid, gid);
    if (error)
        end_transfer(o, error);
    return error;
}

void transfer_data(struct object *o, uint64_t offset, const uint8_t *bytes, size_t n)
{
    struct in_stream *in = &o->in;
    if (offset > in->kept || offset + n < offset || offset + n <= in->kept)
        return;
    bytes += in->kept - offset;
    n -= (size_t)(in->kept - offset);
    while (n) {
        ssize_t written = write(o->file_fd, bytes, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            end_transfer(o, written < 0 ? -errno : -ENOSPC);
            return;
        }
        in->kept += (uint64_t)written;
        bytes += written;
        n -= (size_t)written;
    }
}

void transfer_finish(struct object *o)
{
    int error = 0;
    if (o->temporary[0]) {
        unsigned flags = o->flags & WRITE_EXCLUSIVE ? RENAME_WITHOUT_REPLACING : 0;
        if (syscall(SYS_renameat2, o->parent_fd, o->temporary, o->parent_fd, o->name, flags))
            error = -errno;
        else
            o->temporary[0] = 0;
    }
    end_transfer(o, error);
}
