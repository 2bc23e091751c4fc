#include "survey.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Descriptors of PID 1, the agent. */
#define AGENT "/proc/1/fd"
#define OVERLAYFS_MAGIC 0x794c7630

/* What is in a container's root is in an overlay, and may have any path. */
static bool is_in_container(int directory, const char *name)
{
    struct statfs found;
    int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool inside = fd < 0 || fstatfs(fd, &found) || (unsigned long)found.f_type == OVERLAYFS_MAGIC;
    if (fd >= 0)
        close(fd);
    return inside;
}

/*
 * Finds a directory in the container's mount namespace, where it lies beneath the root: only the agent's descriptor
 * leads to it. Returns whether it is there.
 */
static bool find_layer(const char *path, char into[PATH_MAX])
{
    DIR *descriptors = opendir(AGENT);
    bool found = false;
    if (!descriptors)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(descriptors));) {
        ssize_t length = readlinkat(dirfd(descriptors), entry->d_name, into, PATH_MAX - 1);
        found = length == (ssize_t)strlen(path) && !memcmp(into, path, (size_t)length) &&
                !is_in_container(dirfd(descriptors), entry->d_name);
        if (found)
            snprintf(into, PATH_MAX, AGENT "/%.16s", entry->d_name);
    }
    closedir(descriptors);
    return found;
}

static int survey_container(void)
{
    static char upper[PATH_MAX], lower[PATH_MAX];
    if (!find_layer(SURVEY_UPPER, upper) || !find_layer(SURVEY_LOWER, lower))
        return 1;
    return survey_changes(upper, lower);
}

int survey_run(const char *name)
{
    if (!strcmp(name, "processes"))
        return survey_processes();
    return strcmp(name, "changes") ? -1 : survey_container();
}
