/* Little-endian numbers and counted bytes on standard output, in records that begin with their length. */
#ifndef MAYFLY_SURVEY_OUT_H
#define MAYFLY_SURVEY_OUT_H

#include <stddef.h>
#include <stdint.h>

/* Longest record: numbers, a name and a path or a command line. */
#define SURVEY_RECORD_BYTES 8192

struct survey_record {
    size_t length;
    uint8_t bytes[SURVEY_RECORD_BYTES];
};

/* What does not fit any more is left out. */
void survey_u8(struct survey_record *record, uint8_t value);
void survey_u16(struct survey_record *record, uint16_t value);
void survey_u32(struct survey_record *record, uint32_t value);
void survey_u64(struct survey_record *record, uint64_t value);
/* `u16 length`, and at most 4096 bytes. */
void survey_bytes(struct survey_record *record, const void *bytes, size_t n);

/* Prints what has been gathered, as it is or with its length (u32) before it, and empties the record. Returns 0 or -1. */
int survey_print_raw(struct survey_record *record);
int survey_print(struct survey_record *record);

/* Prints the end: a record of length 0, then the number of records. Returns 0 or -1. */
int survey_finish(void);

#endif
