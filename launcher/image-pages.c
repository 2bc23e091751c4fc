/* Memory of a process that stands still, and which of its pages are its own. */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ENTRIES_BYTES (1 << 20)
#define PRESENT (UINT64_C(1) << 63) /* bits of proc_pid_pagemap(5) */
#define SWAPPED (UINT64_C(1) << 62)
#define OF_A_FILE (UINT64_C(1) << 61)

static int memory, pagemap;

static int open_of(pid_t pid, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        give_up("cannot open %s: %s", path, strerror(errno));
    return file;
}

void image_open_memory(pid_t pid)
{
    memory = open_of(pid, "mem");
    pagemap = open_of(pid, "pagemap");
}

void image_close_memory(void)
{
    close(memory);
    close(pagemap);
}

void image_read_memory(uint8_t *to, uint64_t start, uint64_t bytes)
{
    if (pread(memory, to, bytes, (off_t)start) != (ssize_t)bytes)
        give_up("cannot read memory of the process at %" PRIx64 ": %s", start, strerror(errno));
}

/* Whether a page is there and not the file's. */
static bool is_own(uint64_t entry)
{
    return (entry & SWAPPED) || ((entry & PRESENT) && !(entry & OF_A_FILE));
}

bool image_next_own(uint64_t *at, uint64_t *behind, uint64_t end)
{
    static uint64_t entries[ENTRIES_BYTES / sizeof(uint64_t)];
    bool found = false;
    for (uint64_t address = *at; address < end;) {
        uint64_t pages = (end - address) / IMAGE_PAGE, most = sizeof entries / sizeof *entries;
        ssize_t got = pread(pagemap, entries, (pages < most ? pages : most) * sizeof *entries, (off_t)(address / IMAGE_PAGE * sizeof *entries));
        if (got <= 0)
            give_up("cannot look at the pages of the process: %s", strerror(errno));
        for (size_t i = 0; i < (size_t)got / sizeof *entries; i++, address += IMAGE_PAGE) {
            if (is_own(entries[i]) && !found) {
                *at = address;
                found = true;
            } else if (!is_own(entries[i]) && found) {
                *behind = address;
                return true;
            }
        }
    }
    *behind = end;
    return found;
}
