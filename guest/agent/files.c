#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "protocol.h"

#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#define RESOLVE_NO_XDEV_FLAG 0x01u
#define RESOLVE_IN_ROOT_FLAG 0x10u
#define NAME_LIMIT 256
#define MAX_REMOVE_DEPTH 512
#define DIRENT_BUFFER_BYTES 2048

struct open_how_arguments {
    uint64_t flags, mode, resolve;
};

/* What getdents64 fills in. */
struct directory_entry {
    uint64_t inode;
    int64_t next;
    uint16_t length;
    uint8_t type;
    char name[];
};

static int root_fd = -1;

void files_set_root(int fd)
{
    if (root_fd >= 0)
        close(root_fd);
    root_fd = fd;
}

static int open_below(int directory, const char *path, uint64_t flags, mode_t mode, uint64_t resolve)
{
    struct open_how_arguments how = {flags | O_CLOEXEC, mode, resolve};
    long fd;
    do
        fd = syscall(SYS_openat2, directory, path, &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN)); /* EAGAIN: a rename raced with the walk */
    return fd < 0 ? -errno : (int)fd;
}

int files_open(const char *path, uint64_t flags, mode_t mode)
{
    return open_below(root_fd, path, flags, flags & O_CREAT ? mode : 0, RESOLVE_IN_ROOT_FLAG);
}

/* Makes each directory of the path that is missing; path is changed on the way and restored. */
static int make_directories(char *path, mode_t mode)
{
    int fd = files_open("/", O_PATH | O_DIRECTORY, 0), error = 0;
    if (fd < 0)
        return fd;
    for (char *at = path; !error; at++) {
        while (*at == '/')
            at++;
        if (!*at)
            break;
        at += strcspn(at, "/");
        char separator = *at;
        *at = 0;
        close(fd);
        fd = files_open(path, O_PATH | O_DIRECTORY, 0);
        if (fd == -ENOENT) {
            char name[NAME_LIMIT];
            int parent = files_open_parent(path, 0, name);
            error = parent < 0 ? parent : mkdirat(parent, name, mode) && errno != EEXIST ? -errno : 0;
            if (parent >= 0)
                close(parent);
            fd = error ? -1 : files_open(path, O_PATH | O_DIRECTORY, 0);
        }
        if (fd < 0 && !error)
            error = fd;
        *at = separator;
        if (!separator)
            break;
    }
    if (fd >= 0)
        close(fd);
    return error;
}

int files_open_parent(const char *path, int parents, char *name)
{
    char directory[PATH_MAX];
    size_t length = strlen(path);
    while (length && path[length - 1] == '/')
        length--;
    size_t start = length;
    while (start && path[start - 1] != '/')
        start--;
    if (length >= sizeof directory)
        return -ENAMETOOLONG;
    if (length == start)
        return *path ? -EBUSY : -ENOENT; /* the root itself */
    if (length - start >= NAME_LIMIT)
        return -ENAMETOOLONG;
    memcpy(name, path + start, length - start);
    name[length - start] = 0;
    if (!strcmp(name, ".") || !strcmp(name, ".."))
        return -EINVAL;
    memcpy(directory, path, start);
    directory[start] = 0;
    if (parents) {
        int error = make_directories(directory, 0755);
        if (error)
            return error;
    }
    return files_open(start ? directory : "/", O_PATH | O_DIRECTORY, 0);
}

static void put_stat(struct writer *w, const struct stat *st, const char *target)
{
    put_u32(w, st->st_mode);
    put_u32(w, st->st_uid);
    put_u32(w, st->st_gid);
    put_u32(w, (uint32_t)st->st_nlink);
    put_u64(w, (uint64_t)st->st_size);
    put_u64(w, st->st_ino);
    put_u64(w, (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec);
    put_u64(w, st->st_rdev);
    put_string(w, target);
}

/* Reads a symlink's target; "" for anything else. An empty name means the descriptor itself. */
static void read_target(int directory, const char *name, const struct stat *st, char target[PATH_MAX])
{
    ssize_t n = S_ISLNK(st->st_mode) ? readlinkat(directory, name, target, PATH_MAX - 1) : 0;
    target[n < 0 ? 0 : n] = 0;
}

int files_stat(const char *path, uint32_t flags, struct writer *result)
{
    struct stat st;
    char target[PATH_MAX];
    int fd = files_open(path, O_PATH | (flags & STAT_NOFOLLOW ? O_NOFOLLOW : 0), 0);
    if (fd < 0)
        return fd;
    int error = fstat(fd, &st) ? -errno : 0;
    if (!error) {
        read_target(fd, "", &st, target);
        put_stat(result, &st, target);
    }
    close(fd);
    return error;
}

static bool is_dot(const char *name) { return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])); }

/* Puts entries until the result is full; sets *next to the cookie behind the last one that fitted, 0 at the end. */
static int list_entries(int fd, uint64_t *next, struct writer *result)
{
    char buffer[DIRENT_BUFFER_BYTES] __attribute__((aligned(8))), target[PATH_MAX];
    struct stat st;
    for (;;) {
        long n = syscall(SYS_getdents64, fd, buffer, sizeof buffer);
        if (n <= 0) {
            *next = 0;
            return n < 0 ? -errno : 0;
        }
        for (long at = 0; at < n;) {
            const struct directory_entry *entry = (const void *)(buffer + at);
            struct writer before = *result;
            at += entry->length;
            if (!is_dot(entry->name) && !fstatat(fd, entry->name, &st, AT_SYMLINK_NOFOLLOW)) {
                read_target(fd, entry->name, &st, target);
                put_stat(result, &st, target);
                put_string(result, entry->name);
                if (result->full) {
                    *result = before;
                    return 0;
                }
            }
            *next = (uint64_t)entry->next;
        }
    }
}

int files_list(const char *path, uint64_t cookie, struct writer *result)
{
    struct writer head = *result;
    int fd = files_open(path, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0);
    if (fd < 0)
        return fd;
    int error = 0;
    if (cookie && lseek(fd, (off_t)cookie, SEEK_SET) < 0)
        error = -errno;
    put_u64(result, 0);
    if (!error)
        error = list_entries(fd, &cookie, result);
    put_u64(&head, cookie);
    close(fd);
    return error;
}

int files_make_directory(const char *path, uint32_t flags, uint32_t mode)
{
    char name[NAME_LIMIT];
    struct stat st;
    int parent = files_open_parent(path, flags & MKDIR_PARENTS, name);
    if (parent < 0)
        return parent == -EBUSY ? flags & MKDIR_PARENTS ? 0 : -EEXIST : parent;
    int error = mkdirat(parent, name, mode & 07777) ? -errno : 0;
    if (error == -EEXIST && (flags & MKDIR_PARENTS)) {
        int fd = files_open(path, O_PATH | O_DIRECTORY, 0);
        error = fd < 0 ? fd : 0;
        if (fd >= 0)
            close(fd);
    } else if (!error && (mode & 07000) && !fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW)) {
        error = fchmodat(parent, name, mode & 07777, 0) ? -errno : 0; /* mkdir ignores set-id bits */
    }
    close(parent);
    return error;
}

static int remove_directory(int parent, const char *name, int depth);

static int remove_entry(int parent, const char *name, int depth)
{
    if (!unlinkat(parent, name, 0))
        return 0;
    return errno == EISDIR ? remove_directory(parent, name, depth) : -errno;
}

static int remove_contents(int fd, int depth)
{
    char buffer[DIRENT_BUFFER_BYTES] __attribute__((aligned(8)));
    for (;;) {
        bool any = false;
        if (lseek(fd, 0, SEEK_SET) < 0)
            return -errno;
        for (long n; (n = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) != 0;) {
            if (n < 0)
                return -errno;
            for (long at = 0; at < n;) {
                const struct directory_entry *entry = (const void *)(buffer + at);
                at += entry->length;
                if (is_dot(entry->name))
                    continue;
                int error = remove_entry(fd, entry->name, depth + 1);
                if (error && error != -ENOENT)
                    return error;
                any = true;
            }
        }
        if (!any)
            return 0;
    }
}

/*
 * Removes a directory, below a positive depth with all in it. EBUSY for a mount point: the workload's mounts are none
 * to the agent, which lives in another namespace and would take them away.
 */
static int remove_directory(int parent, const char *name, int depth)
{
    int fd = open_below(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, RESOLVE_NO_XDEV_FLAG), error = 0;
    if (fd < 0)
        return fd == -EXDEV ? -EBUSY : fd;
    if (depth > MAX_REMOVE_DEPTH)
        error = -ELOOP;
    else if (depth > 0)
        error = remove_contents(fd, depth);
    close(fd);
    if (error)
        return error;
    return unlinkat(parent, name, AT_REMOVEDIR) ? -errno : 0;
}

int files_remove(const char *path, uint32_t flags)
{
    char name[NAME_LIMIT];
    int parent = files_open_parent(path, 0, name);
    int error = parent < 0 ? parent : remove_entry(parent, name, flags & REMOVE_RECURSIVE ? 1 : 0);
    if (parent >= 0)
        close(parent);
    return error == -ENOENT && (flags & REMOVE_MISSING_OK) ? 0 : error;
}

int files_replace(const char *path, const char *text, mode_t mode)
{
    char name[NAME_LIMIT];
    int parent = files_open_parent(path, 1, name);
    if (parent < 0)
        return parent;
    int fd = files_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, mode);
    if (fd == -ENOENT && !unlinkat(parent, name, 0)) /* a symlink to nowhere */
        fd = files_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, mode);
    close(parent);
    if (fd < 0)
        return fd;
    size_t length = strlen(text);
    ssize_t n = write(fd, text, length);
    int error = n == (ssize_t)length ? 0 : n < 0 ? -errno : -ENOSPC;
    close(fd);
    return error;
}
