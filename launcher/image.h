/*
 * A process image: a process that stands still, as a file from which it goes on any number of times. It is a cache: it fits the files that the process has
 * mapped, and this boot of the host, or it is of no use.
 */
#ifndef MAYFLY_IMAGE_H
#define MAYFLY_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/user.h>

#include "copy.h"

#define IMAGE_MAGIC "mayfly process image 1"
#define IMAGE_PAGE 4096
#define MAX_IMAGE_FILES 128
#define MAX_IMAGE_MAPPINGS 1024
#define MAX_IMAGE_RUNS 65536
#define MAX_IMAGE_DESCRIPTORS 256
#define MAX_IMAGE_SIGNALS 64
#define MAX_SPECIAL 4
#define FROM_NOTHING (-1)
#define FROM_IMAGE (-2)

/* Where what goes on from an image has its own code, from then on: where no program has anything. */
#define IMAGE_CODE_AT 0x200000000000
#define IMAGE_CODE_BYTES 0x400000

struct image_header {
    char magic[32], boot_id[40], name[16];
    uint64_t bytes; /* of this and all tables, whole pages; behind them come pages of memory */
    uint32_t files, mappings, runs, threads, descriptors, signals, specials, pad;
    struct {
        char name[16];
        uint64_t start, bytes;
    } special[MAX_SPECIAL]; /* what the kernel maps into every process */
    /* As prctl(PR_SET_MM_MAP) has it. */
    struct {
        uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end;
        uint64_t auxv;
        uint32_t auxv_bytes, program;
    } layout;
};

/* A file that is mapped or open; it has to be the same one. */
struct image_file {
    char path[512];
    uint64_t device, inode, bytes;
    int64_t changed_s, changed_ns;
};

struct image_mapping {
    uint64_t start, end, offset;
    int32_t file; /* FROM_NOTHING, FROM_IMAGE, or the number of a file */
    uint32_t protection, grows;
    uint32_t first_run, runs; /* pages that differ from the file's */
};

struct image_run {
    uint64_t start, bytes, offset;
};

struct image_descriptor {
    int32_t number;
    enum { GIVEN, AN_EVENT, AN_EPOLL, A_SIGNALFD, A_FILE, HUNG_UP } kind; /* given: has to be open already; hung up: a connection that nobody is at the other end of */
    int32_t flags, file;
    uint64_t value; /* count of an event, signals */
};

/* As the kernel has it. */
struct kernel_action {
    uint64_t handler, flags, restorer, mask;
};

struct image_signal {
    uint64_t number;
    struct kernel_action action;
};

struct image_thread {
    struct user_regs_struct registers;
    uint64_t signals, tid_address, robust_list, robust_bytes;
    struct rseq_place rseq;
    uint64_t extended_bytes;
    uint8_t extended[MAX_EXTENDED_BYTES];
};

/*
 * Writes the image of a process that stands still into a file. `data_file` is a copy of the file that the process has open and mapped, as its guest's memory:
 * pages of its own are written into that, and who goes on from the image maps it instead. -1: there is none, and of all files that it has mapped the image
 * has the pages that differ, which who goes on gets copies of. Gives up when the process has what no image has.
 */
void image_write(const struct parent *parent, int file, int data_file);

/* Parts of that. The next place in a table, or it gives up. */
uint32_t image_next(uint32_t *count, uint32_t most, const char *what);
void image_add_signals(const struct parent *parent, struct image_header *header, struct image_signal *signals);
void image_open_memory(pid_t pid);
void image_close_memory(void);
void image_read_memory(uint8_t *to, uint64_t start, uint64_t bytes);
/* Finds the next pages in a row that are the process' own, from `at` on. Returns false if there are none before `end`. */
bool image_next_own(uint64_t *at, uint64_t *behind, uint64_t end);
void image_look_at_layout(const struct parent *parent, struct image_header *header);

/* The id of this boot of the host, into zeroes. Returns whether it is known. */
bool image_boot_id(char id[40]);

/*
 * Becomes the process of an image that is open. `base` is open, too: a file that it has mapped and may not open itself; -1: there is none. Never returns; fails
 * with EXIT_STALE_IMAGE if the image is of no use here.
 */
_Noreturn void image_become(int file, int base);
#define EXIT_STALE_IMAGE 125

#endif
