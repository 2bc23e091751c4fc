#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "text.h"

#define POPULATE_WRITE 23 /* MADV_POPULATE_WRITE */
#define TRIM_STEP_BYTES (8u << 20)
#define TRIM_SMALLEST_STEP_BYTES (256u << 10)
#define TRIM_RESERVE_BYTES (2u << 20)
#define TRIM_WATERMARK_KIB "1024"
#define WATERMARK "/proc/sys/vm/min_free_kbytes"

static uint64_t meminfo(const char *key)
{
    char text[2048];
    if (text_read_at(AT_FDCWD, "/proc/meminfo", text, sizeof text) < 0)
        return 0;
    return text_number(text, key, 0) * 1024;
}

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
    char text[128] = "";
    const char *at = text;
    struct cgroup_usage usage;
    struct timespec uptime;
    cgroup_read_usage(&usage);
    put_u64(result, meminfo("MemTotal:"));
    put_u64(result, meminfo("MemFree:"));
    put_u64(result, meminfo("MemAvailable:"));
    put_u64(result, usage.memory_bytes);
    put_u64(result, usage.cpu_us);
    put_u32(result, usage.pids);
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

int machine_sync(void *unused, volatile uint64_t *result)
{
    (void)unused;
    (void)result;
    sync();
    return text_write("/proc/sys/vm/drop_caches", "3");
}

static int populate(uint8_t *at, size_t size)
{
    if (madvise(at, size, POPULATE_WRITE) == 0)
        return 0;
    if (errno != EINVAL)
        return -errno;
    for (size_t offset = 0; offset < size; offset += 4096) /* kernels before 5.14 */
        *(volatile uint8_t *)(at + offset) = 0;
    return 0;
}

/*
 * Touches fresh pages, which the kernel hands out zeroed, until little is free. It stops when free memory no longer
 * goes down as pages are taken: then the kernel has begun to reclaim what is in use.
 */
static int fill(uint64_t max_bytes, volatile uint64_t *zeroed_bytes)
{
    uint64_t total = meminfo("MemTotal:"), filled = 0;
    uint64_t size = (max_bytes < total ? max_bytes : total) & ~4095ull;
    if (size == 0)
        return 0;
    uint8_t *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return -errno;
    madvise(at, size, MADV_NOHUGEPAGE);
    while (filled < size) {
        uint64_t before = meminfo("MemFree:"), step = TRIM_STEP_BYTES;
        uint64_t spare = before > TRIM_RESERVE_BYTES ? before - TRIM_RESERVE_BYTES : 0;
        while (step > spare && step > TRIM_SMALLEST_STEP_BYTES)
            step /= 2;
        if (step > spare)
            return 0;
        if (step > size - filled)
            step = size - filled;
        int error = populate(at + filled, step);
        if (error)
            return error == -ENOMEM || error == -EFAULT ? 0 : error;
        filled += step;
        *zeroed_bytes = filled;
        if (meminfo("MemFree:") + step / 2 > before)
            return 0;
    }
    return 0;
}

int machine_trim(void *max_bytes, volatile uint64_t *zeroed_bytes)
{
    char watermark[32];
    int error = machine_sync(NULL, NULL);
    if (!error)
        error = text_write("/proc/self/oom_score_adj", "1000");
    if (error)
        return error;
    /* Below this mark the kernel would reclaim instead of handing out what is still free. */
    bool lowered = text_read_at(AT_FDCWD, WATERMARK, watermark, sizeof watermark) > 0 &&
                   text_number(watermark, "", 0) > text_number(TRIM_WATERMARK_KIB, "", 0) &&
                   text_write(WATERMARK, TRIM_WATERMARK_KIB) == 0;
    error = fill(*(const uint64_t *)max_bytes, zeroed_bytes);
    if (lowered)
        text_write(WATERMARK, watermark);
    return error;
}
