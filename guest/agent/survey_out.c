#include "survey_out.h"

#include <stdio.h>
#include <string.h>

#define MAX_STRING 4096

static uint32_t printed;

static void put(struct survey_record *record, const void *bytes, size_t n)
{
    if (n > sizeof record->bytes - record->length)
        n = sizeof record->bytes - record->length;
    memcpy(record->bytes + record->length, bytes, n);
    record->length += n;
}

static void number(struct survey_record *record, uint64_t value, size_t bytes)
{
    uint8_t little[8];
    for (size_t i = 0; i < bytes; i++)
        little[i] = (uint8_t)(value >> 8 * i);
    put(record, little, bytes);
}

void survey_u8(struct survey_record *record, uint8_t value) { number(record, value, 1); }
void survey_u16(struct survey_record *record, uint16_t value) { number(record, value, 2); }
void survey_u32(struct survey_record *record, uint32_t value) { number(record, value, 4); }
void survey_u64(struct survey_record *record, uint64_t value) { number(record, value, 8); }

void survey_bytes(struct survey_record *record, const void *bytes, size_t n)
{
    if (n > MAX_STRING)
        n = MAX_STRING;
    survey_u16(record, (uint16_t)n);
    put(record, bytes, n);
}

int survey_print_raw(struct survey_record *record)
{
    size_t length = record->length;
    record->length = 0;
    return fwrite(record->bytes, 1, length, stdout) == length ? 0 : -1;
}

int survey_print(struct survey_record *record)
{
    struct survey_record head = {0};
    survey_u32(&head, (uint32_t)record->length);
    printed++;
    return survey_print_raw(&head) || survey_print_raw(record) ? -1 : 0;
}

int survey_finish(void)
{
    struct survey_record end = {0};
    survey_u32(&end, 0);
    survey_u32(&end, printed);
    return survey_print_raw(&end) || fflush(stdout) ? -1 : 0;
}
