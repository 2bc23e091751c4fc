#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "text.h"

/* A number with two decimals, times 100; *text moves behind it. */
static uint64_t take_hundredths(const char **text)
{
    uint64_t value = 0;
    for (; **text == '.' || (**text >= '0' && **text <= '9'); ++*text)
        if (**text != '.')
            value = value * 10 + (uint64_t)(**text - '0');
    while (**text == ' ')
        ++*text;
    return value;
}

void machine_stats(struct writer *result)
{
    static const char *const memory[] = {"MemTotal:", "MemFree:", "MemAvailable:"};
    char text[2048];
    const char *at = text;
    struct cgroup_usage usage;
    struct timespec uptime;
    cgroup_read_usage(&usage);
    text[0] = 0;
    text_read_at(AT_FDCWD, "/proc/meminfo", text, sizeof text);
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        put_u64(result, text_number(text, memory[i], 0) * 1024);
    put_u64(result, usage.memory_bytes);
    put_u64(result, usage.cpu_us);
    put_u32(result, usage.pids);
    text[0] = 0;
    text_read_at(AT_FDCWD, "/proc/loadavg", text, sizeof text);
    put_u32(result, (uint32_t)take_hundredths(&at) * 10);
    clock_gettime(CLOCK_BOOTTIME, &uptime);
    put_u64(result, (uint64_t)uptime.tv_sec * 1000000000u + (uint64_t)uptime.tv_nsec);
    text[0] = 0;
    at = text;
    text_read_at(AT_FDCWD, "/proc/uptime", text, sizeof text);
    take_hundredths(&at);
    put_u64(result, take_hundredths(&at) * 10000000u);
}

/*
 * Programs on the root file system are in memory only, and cannot be dropped. The kernel marks their pages as the next to go instead, with the flag
 * that says "read ahead" elsewhere, and for good: faults then map such pages one by one, and not with those around them. What is mapped is left alone.
 */
static void keep_mapped(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (!fstat(fd, &status) && status.st_size > 0)
        mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    close(fd);
}

int machine_sync(void *unused, volatile uint64_t *result)
{
    (void)unused;
    (void)result;
    sync();
    keep_mapped("/bin/busybox");
    keep_mapped("/proc/self/exe");
    return text_write("/proc/sys/vm/drop_caches", "3");
}
