/* Writes process images. */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <dirent.h>
#include <unistd.h>

#include "options.h"

#define CHUNK_BYTES (1 << 20)

static struct image_header header;
static struct image_file files[MAX_IMAGE_FILES];
static struct image_mapping mappings[MAX_IMAGE_MAPPINGS];
static struct image_run runs[MAX_IMAGE_RUNS];
static struct image_descriptor descriptors[MAX_IMAGE_DESCRIPTORS];
static struct image_signal signals[MAX_IMAGE_SIGNALS];
static struct image_thread thread;
static int image, data;
static int32_t data_number; /* of the file with the process' data, among all; -1: none yet */
static uint64_t written; /* offset behind what has been written */

static void put_into(int file, const void *bytes, size_t count, uint64_t offset)
{
    for (size_t done = 0; done < count;) {
        ssize_t one = pwrite(file, (const char *)bytes + done, count - done, (off_t)(offset + done));
        if (one <= 0)
            give_up("cannot write the image: %s", strerror(errno));
        done += (size_t)one;
    }
}

static void describe_file(struct image_file *file, const struct stat *status)
{
    file->device = status->st_dev;
    file->inode = status->st_ino;
    file->bytes = (uint64_t)status->st_size;
    file->changed_s = status->st_mtim.tv_sec;
    file->changed_ns = status->st_mtim.tv_nsec;
}

/* The number of a file, by a path that names the same one. */
static int32_t file_number(const char *path, uint64_t inode)
{
    struct stat status;
    for (uint32_t i = 0; i < header.files; i++)
        if (!strcmp(files[i].path, path))
            return (int32_t)i;
    struct image_file *file = &files[image_next(&header.files, MAX_IMAGE_FILES, "files")];
    if (strlen(path) >= sizeof file->path || stat(path, &status) || !S_ISREG(status.st_mode) || status.st_ino != inode)
        give_up("a process that has %s has no image", path);
    strcpy(file->path, path);
    describe_file(file, &status);
    return (int32_t)header.files - 1;
}

static bool is_zero(const uint8_t *page)
{
    return !page[0] && !memcmp(page, page + 1, IMAGE_PAGE - 1);
}

/* Copies memory into a file, into a hole: zeroes stay that. */
static void put_memory(int file, uint64_t start, uint64_t end, uint64_t offset)
{
    static uint8_t chunk[CHUNK_BYTES];
    for (uint64_t at = start; at < end;) {
        uint64_t bytes = end - at < CHUNK_BYTES ? end - at : CHUNK_BYTES;
        image_read_memory(chunk, at, bytes);
        for (uint64_t from = 0, to; from < bytes; from = to) {
            bool zero = file == image && is_zero(chunk + from);
            for (to = from + IMAGE_PAGE; to < bytes && (file == image && is_zero(chunk + to)) == zero; to += IMAGE_PAGE)
                ;
            if (!zero)
                put_into(file, chunk + from, to - from, offset + (at - start) + from);
        }
        at += bytes;
    }
}

static struct image_mapping *add_mapping(struct image_mapping mapping)
{
    struct image_mapping *place = &mappings[image_next(&header.mappings, MAX_IMAGE_MAPPINGS, "mappings")];
    *place = mapping;
    place->first_run = header.runs;
    return place;
}

/* Its pages as pages of the image, shared by all that go on from that until they write. */
static void add_from_image(struct image_mapping mapping, uint64_t start, uint64_t end)
{
    mapping.start = start;
    mapping.end = end;
    mapping.file = FROM_IMAGE;
    mapping.offset = written;
    put_memory(image, start, end, written);
    written += end - start;
    add_mapping(mapping);
}

/* Its pages are copied over what is mapped: it stays one mapping, and a stack one that grows. */
static void add_copied(struct image_mapping mapping)
{
    struct image_mapping *place = add_mapping(mapping);
    uint64_t behind;
    for (uint64_t at = mapping.start; image_next_own(&at, &behind, mapping.end); at = behind) {
        struct image_run *run = &runs[image_next(&header.runs, MAX_IMAGE_RUNS, "runs of pages that are copied")];
        *run = (struct image_run){at, behind - at, written};
        put_memory(image, at, behind, written);
        written += behind - at;
        place->runs++;
    }
}

/* The copy of the file with the process' data, under its name; the rest is known when all is in it. */
static int32_t number_of_data(void)
{
    char path[64];
    if (data_number >= 0)
        return data_number;
    data_number = (int32_t)image_next(&header.files, MAX_IMAGE_FILES, "files");
    snprintf(path, sizeof path, "/proc/self/fd/%d", data);
    ssize_t length = readlink(path, files[data_number].path, sizeof files->path - 1);
    if (length < 0)
        give_up("cannot tell the name of the copy of its data: %s", strerror(errno));
    files[data_number].path[length] = 0;
    return data_number;
}

/* Pages of data come into the copy of its file: the guest's memory stays one mapping. */
static void add_data(struct image_mapping mapping)
{
    uint64_t behind;
    for (uint64_t at = mapping.start; image_next_own(&at, &behind, mapping.end); at = behind)
        put_memory(data, at, behind, mapping.offset + (at - mapping.start));
    mapping.file = number_of_data();
    add_mapping(mapping);
}

/* What nobody has touched before and behind its pages stays memory that is zero. */
static void add_anonymous(struct image_mapping mapping)
{
    uint64_t end = mapping.end, first = mapping.start, last = first, behind;
    mapping.file = FROM_NOTHING;
    mapping.offset = 0;
    if (mapping.grows) {
        add_copied(mapping);
        return;
    }
    bool any = image_next_own(&first, &last, end);
    for (uint64_t at = last; any && image_next_own(&at, &behind, end); at = behind)
        last = behind;
    struct image_mapping rest = mapping;
    rest.end = any ? first : end;
    if (rest.start < rest.end)
        add_mapping(rest);
    if (!any)
        return;
    add_from_image(mapping, first, last);
    rest.start = last;
    rest.end = end;
    if (rest.start < rest.end)
        add_mapping(rest);
}

static bool is_open(const char *path)
{
    for (uint32_t i = 0; i < header.descriptors; i++)
        if (descriptors[i].kind == A_FILE && !strcmp(files[descriptors[i].file].path, path))
            return true;
    return false;
}

/* As proc_pid_maps(5) says it. */
static bool is_deleted(const char *path)
{
    static const char mark[] = " (deleted)";
    size_t length = strlen(path), marked = sizeof mark - 1;
    return length > marked && !strcmp(path + length - marked, mark);
}

static void add_of_file(struct image_mapping mapping, const char *path, uint64_t inode)
{
    uint64_t at = mapping.start, behind;
    /* The image that it has gone on from itself the last time it was suspended, which went when it did. */
    if (data < 0 && is_deleted(path)) {
        add_from_image(mapping, mapping.start, mapping.end);
        return;
    }
    mapping.file = file_number(path, inode);
    if (data < 0)
        add_copied(mapping);
    else if (is_open(path))
        add_data(mapping);
    else if (image_next_own(&at, &behind, mapping.end))
        add_from_image(mapping, mapping.start, mapping.end);
    else
        add_mapping(mapping);
}

static void add_special(const char *name, uint64_t start, uint64_t end)
{
    uint32_t index = image_next(&header.specials, MAX_SPECIAL, "mappings of the kernel's");
    snprintf(header.special[index].name, sizeof header.special->name, "%.15s", name);
    header.special[index].start = start;
    header.special[index].bytes = end - start;
}

/* A line of proc_pid_maps(5). */
static void add_line(const char *line)
{
    struct image_mapping mapping = {0};
    char rights[5], path[600] = "";
    uint64_t inode;
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %*s %" SCNu64 " %599[^\n]", &mapping.start, &mapping.end, rights, &mapping.offset, &inode, path) < 5)
        give_up("cannot read a line of mappings: %s", line);
    bool is_ours = mapping.start >= IMAGE_CODE_AT && mapping.end <= IMAGE_CODE_AT + IMAGE_CODE_BYTES;
    if (is_ours || !strcmp(path, "[vsyscall]"))
        return;
    mapping.protection = (rights[0] == 'r' ? PROT_READ : 0) | (rights[1] == 'w' ? PROT_WRITE : 0) | (rights[2] == 'x' ? PROT_EXEC : 0);
    mapping.grows = !strcmp(path, "[stack]");
    if (rights[3] != 'p')
        give_up("a process that shares memory has no image: %s", line);
    if (!strncmp(path, "[v", 2))
        add_special(path, mapping.start, mapping.end);
    else if (inode)
        add_of_file(mapping, path, inode);
    else
        add_anonymous(mapping);
}

static void add_mappings(pid_t pid)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    while (maps && fgets(line, sizeof line, maps))
        add_line(line);
    if (!maps)
        give_up("cannot read %s: %s", path, strerror(errno));
    fclose(maps);
}

/* What a descriptor is, beside those that whoever goes on gets of its own. */
static void add_descriptor(const struct parent *parent, int number, const char *target, const char *info_path)
{
    char line[128];
    unsigned flags = 0;
    uint64_t value = 0;
    struct stat status;
    struct image_descriptor *descriptor = &descriptors[image_next(&header.descriptors, MAX_IMAGE_DESCRIPTORS, "descriptors")];
    FILE *info = fopen(info_path, "re");
    while (info && fgets(line, sizeof line, info)) {
        sscanf(line, "flags: %o", &flags);
        sscanf(line, "sigmask: %" SCNx64, &value);
    }
    if (info)
        fclose(info);
    *descriptor = (struct image_descriptor){.number = number, .kind = GIVEN, .flags = (int)flags};
    for (size_t i = 0; i < parent->connection_count; i++)
        if (parent->connections[i] == number)
            descriptor->kind = HUNG_UP;
    if (!strcmp(target, "anon_inode:[signalfd]")) {
        descriptor->kind = A_SIGNALFD;
        descriptor->value = value;
    } else if (target[0] == '/' && !stat(target, &status) && S_ISREG(status.st_mode)) {
        if ((flags & O_ACCMODE) != O_RDONLY)
            give_up("process %d has %s open, which no two can have", (int)parent->pid, target);
        descriptor->kind = A_FILE;
        descriptor->file = file_number(target, status.st_ino);
    } else if (descriptor->kind != HUNG_UP && strcmp(target, "/dev/null")) {
        give_up("process %d has %s open, which no image has", (int)parent->pid, target);
    }
}

static void add_descriptors(const struct parent *parent)
{
    char path[64], info[96], target[512];
    for (size_t i = 0; i < parent->place_count; i++) {
        const struct place *place = &parent->places[i];
        if (place->kind == GAP)
            continue;
        struct image_descriptor *descriptor = &descriptors[image_next(&header.descriptors, MAX_IMAGE_DESCRIPTORS, "descriptors")];
        bool is_event = place->kind == EVENT, is_epoll = is_event && place->event.flags == EMPTY_EPOLL;
        *descriptor = (struct image_descriptor){place->descriptor, is_epoll ? AN_EPOLL : is_event ? AN_EVENT : GIVEN, place->event.flags, 0, place->event.count};
    }
    snprintf(path, sizeof path, "/proc/%d/fd", (int)parent->pid);
    DIR *open_ones = opendir(path);
    for (struct dirent *entry; open_ones && (entry = readdir(open_ones));) {
        ssize_t length = readlinkat(dirfd(open_ones), entry->d_name, target, sizeof target - 1);
        int number = (int)strtol(entry->d_name, NULL, 10);
        if (length < 0 || number == parent->channel_there)
            continue;
        target[length] = 0;
        snprintf(info, sizeof info, "/proc/%d/fdinfo/%d", (int)parent->pid, number);
        add_descriptor(parent, number, target, info);
    }
    if (!open_ones)
        give_up("cannot read %s: %s", path, strerror(errno));
    closedir(open_ones);
}

static uint64_t put_table(const void *table, size_t bytes, uint64_t offset)
{
    put_into(image, table, bytes, offset);
    return offset + bytes;
}

void image_write(const struct parent *parent, int file, int data_file)
{
    struct stat status;
    const struct image_header none = {.magic = IMAGE_MAGIC};
    header = none;
    image = file;
    data = data_file;
    data_number = -1;
    image_open_memory(parent->pid);
    if (!image_boot_id(header.boot_id))
        give_up("cannot tell which boot of the host this is: %s", strerror(errno));
    /* Tables are written last, the header behind all others: nobody takes half an image for one. */
    written = (sizeof header + sizeof files + sizeof mappings + sizeof runs + sizeof descriptors + sizeof signals + MAX_THREADS * sizeof thread + IMAGE_PAGE) &
              ~(uint64_t)(IMAGE_PAGE - 1);
    header.bytes = written;
    image_look_at_layout(parent, &header);
    image_add_signals(parent, &header, signals);
    add_descriptors(parent);
    add_mappings(parent->pid);
    if (data_number >= 0 && !fstat(data, &status))
        describe_file(&files[data_number], &status);
    header.threads = (uint32_t)parent->thread_count;
    uint64_t at = put_table(files, header.files * sizeof *files, sizeof header);
    at = put_table(mappings, header.mappings * sizeof *mappings, at);
    at = put_table(runs, header.runs * sizeof *runs, at);
    at = put_table(descriptors, header.descriptors * sizeof *descriptors, at);
    at = put_table(signals, header.signals * sizeof *signals, at);
    for (size_t i = 0; i < parent->thread_count; i++) {
        const struct original *original = &parent->threads[i];
        thread = (struct image_thread){.registers = original->thread.registers,
                                       .signals = original->thread.signals,
                                       .tid_address = original->tid_address,
                                       .robust_list = original->robust_list,
                                       .robust_bytes = original->robust_bytes,
                                       .rseq = original->rseq,
                                       .extended_bytes = original->extended_bytes};
        memcpy(thread.extended, original->extended, original->extended_bytes);
        at = put_table(&thread, sizeof thread, at);
    }
    if (ftruncate(image, (off_t)written))
        give_up("cannot write the image: %s", strerror(errno));
    put_into(image, &header, sizeof header, 0);
    image_close_memory();
}
