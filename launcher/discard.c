#include "discard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "options.h"
#include "thread.h"

#define PAGE_BYTES 4096u
#define WINDOW_PAGES 64u /* compared at once */
#define ENTRIES 8192u    /* of the page map, read at once */
/* What one stop takes is bounded by these: some milliseconds. */
#define MAX_RUNS 512u
#define MAX_PAGES 8192u
#define ENTRY_PRESENT ((uint64_t)1 << 63)
#define ENTRY_SWAPPED ((uint64_t)1 << 62)
#define ENTRY_FILE ((uint64_t)1 << 61)

struct run {
    uint64_t first, count; /* pages */
};

static struct {
    pid_t pid, parent;
    uint64_t start_time, address, pages;
    int file, map;
    struct run runs[MAX_RUNS];
    size_t run_count;
    uint64_t found_pages, next_page;  /* where the next look begins */
    uint64_t hole_start, hole_end;    /* the last hole of the file that was found, in bytes */
} job;

/* Whether the file has nothing from `at` to `end`, so that it reads as zeroes there. */
static bool is_hole(uint64_t at, uint64_t end)
{
    if (at < job.hole_start || at >= job.hole_end) {
        off_t data = lseek(job.file, (off_t)at, SEEK_DATA);
        job.hole_start = at;
        job.hole_end = data >= 0 ? (uint64_t)data : errno == ENXIO ? UINT64_MAX : at;
    }
    return end <= job.hole_end;
}

/* The C library's memcmp goes byte by byte, and a guest stands still meanwhile. `other` NULL: zeroes. */
static bool is_same(const uint64_t *page, const uint64_t *other)
{
    enum { STEP = 8 };
    for (size_t at = 0; at < PAGE_BYTES / sizeof *page; at += STEP) {
        uint64_t differs = 0;
        for (size_t i = at; i < at + STEP; i++)
            differs |= other ? page[i] ^ other[i] : page[i];
        if (differs)
            return false;
    }
    return true;
}

/* Which of some pages equal those of the file. Returns how many were compared: fewer when the rest cannot be read. */
static size_t compare(uint64_t first, size_t count, bool same[WINDOW_PAGES])
{
    enum { WORDS = PAGE_BYTES / sizeof(uint64_t) };
    static uint64_t ours[WINDOW_PAGES * WORDS], theirs[WINDOW_PAGES * WORDS];
    uint64_t offset = first * PAGE_BYTES;
    size_t bytes = count * PAGE_BYTES;
    bool hole = is_hole(offset, offset + bytes);
    struct iovec here = {theirs, bytes}, there = {(void *)(uintptr_t)(job.address + offset), bytes};
    if (process_vm_readv(job.pid, &here, 1, &there, 1, 0) != (ssize_t)bytes)
        return 0;
    if (!hole && pread(job.file, ours, bytes, (off_t)offset) != (ssize_t)bytes)
        return 0;
    for (size_t i = 0; i < count; i++)
        same[i] = is_same(theirs + i * WORDS, hole ? NULL : ours + i * WORDS);
    return count;
}

/* Adds a page to a list of runs. Returns whether there was room. */
static bool add(struct run *runs, size_t *run_count, uint64_t page)
{
    struct run *last = *run_count ? &runs[*run_count - 1] : NULL;
    if (last && last->first + last->count == page) {
        last->count++;
        return true;
    }
    if (*run_count == MAX_RUNS)
        return false;
    runs[(*run_count)++] = (struct run){page, 1};
    return true;
}

/* Of the pages from `first` on, which were all copied, those that equal the file. Returns false when the list is full. */
static bool look_at(uint64_t first, uint64_t count)
{
    bool same[WINDOW_PAGES];
    for (uint64_t done = 0; done < count;) {
        size_t window = count - done < WINDOW_PAGES ? (size_t)(count - done) : WINDOW_PAGES;
        size_t compared = compare(first + done, window, same);
        for (size_t i = 0; i < compared; i++) {
            if (!same[i])
                continue;
            if (job.found_pages == MAX_PAGES || !add(job.runs, &job.run_count, first + done + i))
                return false;
            job.found_pages++;
        }
        done += window;
    }
    return true;
}

/* Looks for copied pages that equal the file, from where the last look has stopped, to the end. Returns their bytes. */
static uint64_t look(void)
{
    static uint64_t entries[ENTRIES];
    job.run_count = 0;
    job.found_pages = 0;
    uint64_t begin = job.next_page < job.pages ? job.next_page : 0;
    for (uint64_t page = begin; page < job.pages; page += ENTRIES) {
        size_t count = job.pages - page < ENTRIES ? (size_t)(job.pages - page) : ENTRIES;
        off_t at = (off_t)((job.address / PAGE_BYTES + page) * sizeof *entries);
        if (pread(job.map, entries, count * sizeof *entries, at) != (ssize_t)(count * sizeof *entries))
            fail(EXIT_CANNOT_RUN, "cannot read the page map of process %d: %s", (int)job.pid, strerror(errno));
        for (size_t i = 0, end; i < count; i = end + 1) {
            for (end = i; end < count && (entries[end] & (ENTRY_PRESENT | ENTRY_SWAPPED)) && !(entries[end] & ENTRY_FILE);)
                end++;
            if (end > i && !look_at(page + i, end - i)) {
                job.next_page = page + i;
                return job.found_pages * PAGE_BYTES;
            }
        }
    }
    job.next_page = 0;
    return job.found_pages * PAGE_BYTES;
}

/* Of what was found that which still equals the file. Returns the number of runs. */
static size_t compare_again(struct run equal[MAX_RUNS])
{
    size_t equal_count = 0;
    bool same[WINDOW_PAGES];
    for (size_t i = 0; i < job.run_count; i++)
        for (uint64_t done = 0; done < job.runs[i].count; done += WINDOW_PAGES) {
            uint64_t first = job.runs[i].first + done, left = job.runs[i].count - done;
            size_t compared = compare(first, left < WINDOW_PAGES ? (size_t)left : WINDOW_PAGES, same);
            for (size_t page = 0; page < compared; page++)
                if (same[page])
                    add(equal, &equal_count, first + page); /* without room it stays */
        }
    job.run_count = 0;
    return equal_count;
}

/*
 * Gives back what was found, as far as it still equals the file. Returns its bytes. QEMU's first thread, which carries out its commands, is stopped
 * before anything is compared: if the daemon that has stopped the guest still lives then, nobody can let it run before this is done.
 */
static uint64_t discard(void)
{
    static struct stopped_thread thread;
    static struct run equal[MAX_RUNS];
    uint64_t bytes = 0;
    if (!thread.instruction)
        thread.instruction = thread_instruction(job.pid);
    int error = thread_stop(&thread, job.pid);
    if (error)
        fail(EXIT_CANNOT_RUN, "cannot stop process %d: %s", (int)job.pid, strerror(-error));
    /* Stopped, it cannot become another. */
    long result = process_is(job.pid, job.start_time) ? getppid() == job.parent ? 0 : -ECANCELED : -ESRCH;
    size_t equal_count = result ? 0 : compare_again(equal);
    for (size_t i = 0; i < equal_count && !result; i++) {
        uint64_t length = equal[i].count * PAGE_BYTES;
        result = thread_call(&thread, SYS_madvise, job.address + equal[i].first * PAGE_BYTES, length, MADV_DONTNEED);
        if (!result)
            bytes += length;
    }
    thread_go_on(&thread);
    if (result)
        fail(EXIT_CANNOT_RUN, "process %d does not give memory back: %s", (int)job.pid, strerror((int)-result));
    return bytes;
}

_Noreturn void discard_run(char **arguments)
{
    char path[64], line[32];
    for (int i = 0; i < 5; i++)
        if (!arguments[i])
            fail(EXIT_CANNOT_RUN, "--discard takes PID START_TIME ADDRESS BYTES FILE");
    job.parent = getppid();
    job.pid = (pid_t)number_of("--discard", "PID", arguments[0]);
    job.start_time = number_of("--discard", "START_TIME", arguments[1]);
    job.address = number_of("--discard", "ADDRESS", arguments[2]);
    job.pages = number_of("--discard", "BYTES", arguments[3]) / PAGE_BYTES;
    struct stat stat;
    job.file = open(arguments[4], O_RDONLY | O_CLOEXEC);
    if (job.file < 0 || fstat(job.file, &stat))
        fail(EXIT_CANNOT_RUN, "cannot open %s: %s", arguments[4], strerror(errno));
    if ((uint64_t)stat.st_size != job.pages * PAGE_BYTES)
        fail(EXIT_CANNOT_RUN, "%s has not the size that is mapped", arguments[4]);
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)job.pid);
    job.map = open(path, O_RDONLY | O_CLOEXEC);
    if (job.map < 0 || !process_is(job.pid, job.start_time))
        fail(EXIT_CANNOT_RUN, "cannot look at process %d: %s", (int)job.pid, strerror(job.map < 0 ? errno : ESRCH));
    protect_from_signals();
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "look\n"))
            printf("%" PRIu64 "\n", look());
        else if (!strcmp(line, "discard\n"))
            printf("%" PRIu64 "\n", discard());
        else
            fail(EXIT_CANNOT_RUN, "--discard knows look and discard, not %s", line);
    }
    exit(0);
}
