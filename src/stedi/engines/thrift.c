/* Reads the headers of the pages of a Parquet file, structures in Thrift's compact protocol.

   Every function returns a negative number for bytes that it cannot read, and never reads or writes outside of the memory
   that it was given: the bytes can be damaged, or crafted. What is refused here may still be read by `thrift.py`.

   The library uses no Python and keeps no state: it is called through ctypes, so other threads run at the same time. */
#include <stdint.h>

typedef int32_t i32;
typedef int64_t i64;
typedef uint8_t u8;
typedef uint64_t u64;

#ifndef STEDI_SOURCE
#define STEDI_SOURCE 0
#endif
u64 stedi_source(void) { return STEDI_SOURCE; }

typedef struct { i64 at, size; } Part;                  /* bytes: where they begin, and how many; -1 and -1 if there are none */

typedef struct {                                        /* a page's header; -1 for what it does not say */
    i64 kind, size, packed;                             /* the page's type; its size uncompressed and compressed */
    i64 count, encoding, levels;                        /* of a data page: rows, encoding of values and of levels */
    i64 entries, dictionary_encoding;                   /* of a dictionary page */
    Part bounds[4];                                     /* of a data page: what its statistics say that values lie between */
} Head;

typedef struct { i64 begin, body, end; Head head; } Found; /* a page: its offsets in a chunk, and its header */

/* Reads a number of Thrift's compact protocol at an offset. Returns the offset of its end. */
static i64 number(const u8 *bytes, i64 size, i64 at, u64 *value) {
    *value = 0;
    for (i32 shift = 0; at < size; shift += 7) {
        u8 byte = bytes[at++];
        if (shift == 63 && byte > 1) return -1;
        *value |= (u64)(byte & 127) << shift;
        if (byte < 128) return at;
    }
    return -1;
}

/* Types; the fields of a `Fields`; structures and lists within each other. */
enum { I16 = 4, I32 = 5, I64 = 6, BINARY = 8, LIST = 9, STRUCT = 12, FIELDS = 9, DEPTH = 15 };

typedef struct { u8 kinds[FIELDS]; i64 values[FIELDS]; } Fields; /* a number's value, or the offset of another value */

static i64 structure(const u8 *bytes, i64 size, i64 at, i32 depth, Fields *fields);

/* Returns the offset of the end of a value of a type; sets *value if it is a number. */
static i64 value_end(const u8 *bytes, i64 size, i64 at, i32 kind, i32 depth, i64 *value) {
    u64 found;
    if (kind >= I16 && kind <= I64) {
        at = number(bytes, size, at, &found);
        *value = (i64)(found >> 1) ^ -(i64)(found & 1);
        return at;
    }
    if (kind == BINARY) {
        at = number(bytes, size, at, &found);
        return at < 0 || found > (u64)(size - at) ? -1 : at + (i64)found;
    }
    if (kind == STRUCT) return depth ? structure(bytes, size, at, depth - 1, 0) : -1;
    if (kind != LIST || at >= size || !depth) return -1;
    i32 of = bytes[at] & 15;
    found = bytes[at++] >> 4;
    if (found == 15) at = number(bytes, size, at, &found);
    if (at < 0 || found > (u64)(size - at) || of == 1 || of == 2) return -1; /* 1 and 2: true and false */
    for (i64 unused; found && at >= 0; found--) at = value_end(bytes, size, at, of, depth - 1, &unused);
    return at;
}

/* Returns the offset of the end of a structure that begins at an offset, and sets its fields, if they are wanted. */
static i64 structure(const u8 *bytes, i64 size, i64 at, i32 depth, Fields *fields) {
    i64 field = 0;
    while (at >= 0 && at < size) {
        i32 head = bytes[at++], kind = head & 15;
        u64 id;
        if (!head) return at;
        if (head >> 4) field += head >> 4;
        else {
            at = number(bytes, size, at, &id);
            if (at < 0 || id > 1 << 16) return -1;
            field = (i64)(id >> 1) ^ -(i64)(id & 1);
        }
        i64 begin = at, value = 0;
        if (kind < 1 || kind > 2) at = value_end(bytes, size, at, kind, depth, &value); /* 1 and 2: true and false */
        if (!fields) continue;
        if (field < 0 || field >= FIELDS) return -1;
        fields->kinds[field] = (u8)kind;
        fields->values[field] = kind < I16 || kind > I64 ? begin : value;
    }
    return -1;
}

/* Sets *value to the number in a field, -1 if there is none. Returns whether the field has no other type. */
static int told(const Fields *fields, i32 field, i64 *value) {
    *value = fields->kinds[field] ? fields->values[field] : -1;
    return !fields->kinds[field] || fields->kinds[field] == I32;
}

/* Reads the structure in a field, if there is one. Returns whether it is one without fields after
   `most`. */
static int inside(const u8 *bytes, i64 size, const Fields *of, i32 field, i32 most, Fields *to) {
    if (!of->kinds[field]) return 1;
    if (of->kinds[field] != STRUCT || structure(bytes, size, of->values[field], DEPTH, to) < 0 || to->kinds[0]) return 0;
    while (++most < FIELDS) if (to->kinds[most]) return 0;
    return 1;
}

/* Sets what the statistics of a page hold in a field, if there are any. Returns whether it holds bytes. */
static int bound(const u8 *bytes, i64 size, const Fields *statistics, i32 field, Part *to) {
    u64 length;
    *to = (Part){ -1, -1 };
    if (!statistics->kinds[field]) return 1;
    if (statistics->kinds[field] != BINARY) return 0;
    to->at = number(bytes, size, statistics->values[field], &length); /* `structure` has seen that the bytes are there */
    to->size = (i64)length;
    return 1;
}

/* Reads the header of the page that begins at an offset. Returns the offset of its end; a negative number if it has an
   unknown field: that could say something about removed rows. */
i64 stedi_head(const u8 *bytes, i64 size, i64 at, Head *head) {
    enum { DATA = 5, DICTIONARY = 7, STATISTICS = 5 };
    static const i32 places[] = {1, 2, 5, 6};
    Fields page = {0}, data = {0}, dictionary = {0}, statistics = {0};
    i64 end = structure(bytes, size, at, DEPTH, &page);
    if (end < 0 || page.kinds[0] || page.kinds[4] || page.kinds[6] || page.kinds[8]) return -1;
    if (!told(&page, 1, &head->kind) || !told(&page, 2, &head->size) || !told(&page, 3, &head->packed)) return -1;
    if (!inside(bytes, size, &page, DATA, 5, &data) || !inside(bytes, size, &page, DICTIONARY, 3, &dictionary)) return -1;
    if (!inside(bytes, size, &data, STATISTICS, 8, &statistics)) return -1;
    if (!told(&data, 1, &head->count) || !told(&data, 2, &head->encoding) || !told(&data, 3, &head->levels)) return -1;
    if (!told(&dictionary, 1, &head->entries) || !told(&dictionary, 2, &head->dictionary_encoding)) return -1;
    for (i32 n = 0; n < 4; n++) if (!bound(bytes, size, &statistics, places[n], &head->bounds[n])) return -1;
    return end;
}

/* Reads the headers of all pages of a chunk, and writes the first `most` of them. Returns the number of pages; -1 if one
   is no page of data, nor a dictionary before all others: crafted bytes could have a header in every third byte. */
i64 stedi_heads(const u8 *bytes, i64 size, i64 most, Found *to) {
    i64 count = 0;
    for (i64 at = 0; at < size; count++) {
        Found found = { .begin = at };
        found.body = at = stedi_head(bytes, size, at, &found.head);
        if (at < 0 || found.head.packed < 0 || found.head.packed > size - at) return -1;
        int data = found.head.kind == 0 && found.head.count >= 0 && found.head.encoding >= 0;
        if (!data && (found.head.kind != 2 || found.begin)) return -1;
        found.end = at += found.head.packed;
        if (count < most) to[count] = found;
    }
    return count;
}
