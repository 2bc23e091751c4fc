#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int text_write_at(int directory, const char *path, const char *text)
{
    int fd = openat(directory, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t length = strlen(text);
    ssize_t n = write(fd, text, length);
    int error = n == (ssize_t)length ? 0 : n < 0 ? -errno : -EIO;
    close(fd);
    return error;
}

int text_write(const char *path, const char *text) { return text_write_at(AT_FDCWD, path, text); }

ssize_t text_read_at(int directory, const char *path, char *into, size_t size)
{
    int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, into, size - 1);
    if (n < 0)
        n = -errno;
    into[n < 0 ? 0 : n] = 0;
    close(fd);
    return n;
}

uint64_t text_number(const char *text, const char *key, uint64_t fallback)
{
    const char *at = strstr(text, key);
    uint64_t value = 0;
    if (!at)
        return fallback;
    at += strlen(key);
    while (*at == ' ')
        at++;
    if (*at < '0' || *at > '9')
        return fallback;
    for (; *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    return value;
}
