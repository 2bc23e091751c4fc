/* What an overlay's upper directory changes of its lower one: Documentation/filesystems/overlayfs.rst of the kernel. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "survey.h"
#include "survey_out.h"

/* A workload may make directories as deep as it likes: from here on they are told of and not looked into. */
#define MAX_DEPTH 100
#define MAX_PATH_LENGTH 4096

/* A directory that is being looked through. */
struct level {
    DIR *upper;
    int lower;          /* the image's directory there, or -1 */
    bool opaque;        /* what the image has in it is gone, unless the upper one has it too */
    size_t path_length; /* with the slash */
};

static struct level levels[MAX_DEPTH];
static int depth;
static char path[MAX_PATH_LENGTH + 1];

static bool is_opaque(int directory)
{
    char value[4];
    return fgetxattr(directory, "trusted.overlay.opaque", value, sizeof value) == 1 && value[0] == 'y';
}

static bool is_whiteout(const struct stat *stat)
{
    return S_ISCHR(stat->st_mode) && stat->st_rdev == makedev(0, 0);
}

/* `stat` is of what is there now; NULL: nothing is. */
static int print_change(unsigned flags, size_t length, const struct stat *stat)
{
    static const struct stat nothing;
    const struct stat *now = stat ? stat : &nothing;
    struct survey_record record = {0};
    survey_u8(&record, (uint8_t)flags);
    survey_u64(&record, now->st_ino);
    survey_u64(&record, (uint64_t)now->st_size);
    survey_u64(&record, (uint64_t)now->st_ctim.tv_sec * 1000000000u + (uint64_t)now->st_ctim.tv_nsec);
    survey_bytes(&record, path, length);
    return survey_print(&record);
}

/* Puts a name behind the path of a level. Returns the whole length, or 0 if it is too long. */
static size_t append(const struct level *level, const char *name)
{
    size_t length = strlen(name);
    if (level->path_length + length + 1 > MAX_PATH_LENGTH)
        return 0;
    memcpy(path + level->path_length, name, length + 1);
    return level->path_length + length;
}

static unsigned compare(const struct stat *upper, const struct stat *lower)
{
    unsigned flags = CHANGE_IN_IMAGE | (S_ISDIR(lower->st_mode) ? CHANGE_DIRECTORY_THERE : 0u);
    if (upper->st_mode == lower->st_mode && upper->st_uid == lower->st_uid && upper->st_gid == lower->st_gid)
        flags |= CHANGE_SAME_OWNER;
    if (upper->st_mtim.tv_sec == lower->st_mtim.tv_sec && upper->st_mtim.tv_nsec == lower->st_mtim.tv_nsec)
        flags |= CHANGE_SAME_TIME;
    return flags;
}

/* Takes `upper` and `lower`. Returns 0 or -1. */
static int enter(int upper, int lower, size_t path_length)
{
    struct level *level = &levels[depth];
    *level = (struct level){.upper = fdopendir(upper), .lower = lower, .opaque = is_opaque(upper), .path_length = path_length};
    if (!level->upper) {
        close(upper);
        if (lower >= 0)
            close(lower);
        return -1;
    }
    path[level->path_length++] = '/';
    depth++;
    return 0;
}

static void leave(void)
{
    struct level *level = &levels[--depth];
    closedir(level->upper);
    if (level->lower >= 0)
        close(level->lower);
}

static int survey_entry(struct level *level, const char *name)
{
    struct stat upper, lower;
    unsigned flags = 0;
    size_t length = append(level, name);
    int directory = dirfd(level->upper);
    if (!length || fstatat(directory, name, &upper, AT_SYMLINK_NOFOLLOW))
        return 0; /* gone meanwhile, or longer than any path can be named */
    if (level->lower >= 0 && !fstatat(level->lower, name, &lower, AT_SYMLINK_NOFOLLOW))
        flags = compare(&upper, &lower);
    if (is_whiteout(&upper))
        return flags ? print_change(flags | CHANGE_DELETED, length, NULL) : 0;
    if (!S_ISDIR(upper.st_mode))
        return print_change(flags, length, &upper);
    flags |= CHANGE_DIRECTORY;
    if (depth == MAX_DEPTH)
        return print_change(flags | CHANGE_CUT, length, &upper);
    if (print_change(flags, length, &upper))
        return -1;
    int upper_fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int lower_fd = -1;
    if (flags & CHANGE_DIRECTORY_THERE)
        lower_fd = openat(level->lower, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return upper_fd < 0 ? 0 : enter(upper_fd, lower_fd, length);
}

/* What an opaque directory hides: names of the image's directory that the upper one has not. */
static int survey_hidden(const struct level *level)
{
    int fd = openat(level->lower, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0;
    DIR *lower = fd < 0 ? NULL : fdopendir(fd);
    if (!lower)
        return fd < 0 ? 0 : close(fd);
    for (struct dirent *entry; !error && (entry = readdir(lower));) {
        struct stat stat;
        size_t length = append(level, entry->d_name);
        if (!length || !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (fstatat(dirfd(level->upper), entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) && errno == ENOENT)
            error = print_change(CHANGE_DELETED | CHANGE_IN_IMAGE, length, NULL);
    }
    closedir(lower);
    return error;
}

int survey_changes(const char *upper_path, const char *lower_path)
{
    struct survey_record head = {0};
    int upper = open(upper_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int lower = open(lower_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (upper < 0 || lower < 0 || enter(upper, lower, 0))
        return 1;
    survey_u32(&head, SURVEY_CHANGES_MAGIC);
    int error = survey_print_raw(&head);
    while (depth && !error) {
        struct level *level = &levels[depth - 1];
        struct dirent *entry = readdir(level->upper);
        if (!entry) {
            if (level->opaque && level->lower >= 0)
                error = survey_hidden(level);
            leave();
        } else if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) {
            error = survey_entry(level, entry->d_name);
        }
    }
    return error || survey_finish() ? 1 : 0;
}
