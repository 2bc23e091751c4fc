/* TRIM: what the guest has freed becomes zero, so that the host can punch holes for it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "machine.h"
#include "text.h"

#define PAGE_BYTES 4096u
#define POPULATE_WRITE 23 /* MADV_POPULATE_WRITE */
#define STEP_BYTES (8u << 20)
#define SMALLEST_STEP_BYTES (256u << 10)
#define ZONE_TEXT_BYTES 65536
#define WATERMARK_KIB "1024"
#define WATERMARK "/proc/sys/vm/min_free_kbytes"

/* The last number in the parentheses behind "protection:": what a zone keeps from allocations that prefer another. */
static uint64_t protection(const char *zone, const char *end)
{
    const char *at = strstr(zone, "protection: (");
    uint64_t value = 0;
    if (!at || at > end)
        return 0;
    for (at += sizeof "protection: (" - 1; *at && *at != ')'; at++)
        value = *at >= '0' && *at <= '9' ? value * 10 + (uint64_t)(*at - '0') : 0;
    return value;
}

/* Bytes that can be taken before the kernel begins to reclaim what is in use: in each zone, those above its high mark. */
static uint64_t spare_bytes(void)
{
    static char text[ZONE_TEXT_BYTES];
    uint64_t pages = 0;
    if (text_read_at(AT_FDCWD, "/proc/zoneinfo", text, sizeof text) < 0)
        return 0;
    for (char *zone = strstr(text, "pages free"); zone;) {
        char *next = strstr(zone + 1, "pages free");
        char *end = next ? next : zone + strlen(zone);
        uint64_t free = text_number(zone, "pages free", 0), kept = text_number(zone, " high ", 0);
        uint64_t protected_pages = text_number(zone, " min ", 0) + protection(zone, end);
        if (kept < protected_pages)
            kept = protected_pages;
        if (free > kept)
            pages += free - kept;
        zone = next;
    }
    return pages * PAGE_BYTES;
}

static int populate(uint8_t *at, size_t size)
{
    if (madvise(at, size, POPULATE_WRITE) == 0)
        return 0;
    if (errno != EINVAL)
        return -errno;
    for (size_t offset = 0; offset < size; offset += PAGE_BYTES) /* kernels before 5.14 */
        *(volatile uint8_t *)(at + offset) = 0;
    return 0;
}

/* Touches fresh pages, which the kernel hands out zeroed, until none is to spare. Whoever ends gives them all back. */
static int fill(uint64_t max_bytes, volatile uint64_t *zeroed_bytes)
{
    uint64_t filled = 0, spare = spare_bytes();
    uint64_t size = (max_bytes < spare ? max_bytes : spare) & ~(uint64_t)(PAGE_BYTES - 1);
    int error = text_write("/proc/self/oom_score_adj", "1000");
    if (error || size == 0)
        return error;
    uint8_t *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return -errno;
    madvise(at, size, MADV_NOHUGEPAGE);
    while (filled < size && (spare = spare_bytes()) >= SMALLEST_STEP_BYTES) {
        uint64_t step = spare / 2 < STEP_BYTES ? spare / 2 & ~(uint64_t)(PAGE_BYTES - 1) : STEP_BYTES;
        if (step > size - filled)
            step = size - filled;
        error = populate(at + filled, step);
        if (error)
            return error == -ENOMEM || error == -EFAULT ? 0 : error;
        filled += step;
        *zeroed_bytes = filled;
    }
    return 0;
}

int machine_trim(void *max_bytes, volatile uint64_t *zeroed_bytes)
{
    char before[32];
    int status = 0, error = machine_sync(NULL, NULL);
    if (error)
        return error;
    /* Below this mark the kernel would reclaim instead of handing out what is still free. */
    bool lowered = text_read_at(AT_FDCWD, WATERMARK, before, sizeof before) > 0 &&
                   text_number(before, "", 0) > text_number(WATERMARK_KIB, "", 0) &&
                   text_write(WATERMARK, WATERMARK_KIB) == 0;
    pid_t pid = fork(); /* of its own, so that the mark is put back even if the kernel kills it */
    if (pid == 0)
        _exit(-fill(*(const uint64_t *)max_bytes, zeroed_bytes));
    error = pid < 0 ? -errno : 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (lowered)
        text_write(WATERMARK, before);
    return error ? error : WIFEXITED(status) ? -WEXITSTATUS(status) : 0;
}
