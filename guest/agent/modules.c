#include "modules.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "text.h"

#define LIST_BYTES 8192
#define COMPRESSED_FILE 4 /* MODULE_INIT_COMPRESSED_FILE */

static int load(const char *path)
{
    size_t length = strlen(path);
    int flags = length > 3 && !strcmp(path + length - 3, ".ko") ? 0 : COMPRESSED_FILE;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = syscall(SYS_finit_module, fd, "", flags) && errno != EEXIST ? -errno : 0;
    close(fd);
    return error;
}

void modules_load(const char *list)
{
    static char text[LIST_BYTES];
    char path[PATH_MAX];
    ssize_t length = text_read_at(AT_FDCWD, list, text, sizeof text);
    if (length < 0 && length != -ENOENT)
        dprintf(2, "mayfly-agent: cannot read %s: %s\n", list, strerror((int)-length));
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) && length > 0;) {
        line[strcspn(line, "# \t\r")] = 0;
        bool optional = line[0] == '?';
        line += optional;
        if (!*line)
            continue;
        snprintf(path, sizeof path, "%s%s", line[0] == '/' ? "" : "/lib/modules/", line);
        int error = load(path);
        if (error && !optional)
            dprintf(2, "mayfly-agent: cannot load module %s: %s\n", path, strerror(-error));
    }
}
