/* What a process image has of a process beside its memory and descriptors. */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STAT_FIELD_CODE 26 /* of proc_pid_stat(5) */
#define STAT_FIELD_DATA 45
#define BOOT_ID_BYTES 36

uint32_t image_next(uint32_t *count, uint32_t most, const char *what)
{
    if (*count == most)
        give_up("a process with more than %" PRIu32 " %s has no image", most, what);
    return (*count)++;
}

bool image_boot_id(char id[40])
{
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    bool known = file >= 0 && read(file, id, BOOT_ID_BYTES) == BOOT_ID_BYTES;
    if (file >= 0)
        close(file);
    return known;
}

void image_add_signals(const struct parent *parent, struct image_header *header, struct image_signal *signals)
{
    struct stopped_thread first = parent->threads[0].thread;
    struct kernel_action action;
    for (uint64_t number = 1; number <= 64; number++) {
        if (number == SIGKILL || number == SIGSTOP)
            continue;
        CALL(&first, "tell what it does at a signal", SYS_rt_sigaction, number, 0, parent->scratch, sizeof(uint64_t));
        read_there(parent->pid, parent->scratch, &action, sizeof action);
        if (action.handler != (uint64_t)(uintptr_t)SIG_DFL)
            signals[image_next(&header->signals, MAX_IMAGE_SIGNALS, "signals")] = (struct image_signal){number, action};
    }
}

/* Where the kernel takes parts of the process to be: its heap grows from there, ps(1) reads its command there. */
void image_look_at_layout(const struct parent *parent, struct image_header *header)
{
    char path[64];
    static char text[2048];
    uint64_t values[64] = {0};
    struct stopped_thread first = parent->threads[0].thread;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)parent->pid);
    FILE *file = fopen(path, "re");
    size_t length = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file)
        fclose(file);
    text[length] = 0;
    const char *name = strchr(text, '('), *at = strrchr(text, ')');
    if (!name || !at)
        give_up("cannot read %s", path);
    snprintf(header->name, sizeof header->name, "%.*s", (int)(at - name - 1), name + 1);
    for (int field = 2; at && field < 52; field++) {
        values[field] = strtoull(at + 1, NULL, 10);
        at = strchr(at + 1, ' ');
    }
    uint64_t *code = &values[STAT_FIELD_CODE], *rest = &values[STAT_FIELD_DATA];
    header->layout.start_code = code[0];
    header->layout.end_code = code[1];
    header->layout.start_stack = code[2];
    memcpy(&header->layout.start_data, rest, 2 * sizeof *rest);
    header->layout.start_brk = rest[2];
    memcpy(&header->layout.arg_start, rest + 3, 4 * sizeof *rest);
    header->layout.brk = (uint64_t)CALL(&first, "tell where its heap ends", SYS_brk, 0);
    header->layout.program = UINT32_MAX;
}
