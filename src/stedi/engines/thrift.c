/* Reads structures in Thrift's compact protocol: the footer of a Parquet file, and the headers of its pages.

   Every function returns a negative number for bytes that it cannot read, and never reads or writes outside of the memory
   that it was given: the bytes can be damaged, or crafted. What is refused here may still be read by `thrift.py`.

   The library uses no Python and keeps no state. It is called through ctypes. */
#include <stdint.h>
#include <string.h>

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

typedef struct { u8 *to; i64 size, room; int full; } Out; /* what is written, and whether there was too little room */

static int put(Out *out, const void *from, i64 size) {
    if ((out->full = size > out->room - out->size)) return 0;
    memcpy(out->to + out->size, from, (size_t)size);
    out->size += size;
    return 1;
}

static int put_byte(Out *out, u8 byte) { return put(out, &byte, 1); }

/* Writes the `size` lowest bytes of a number after the instruction that reads them, the lowest first. */
static int put_bytes(Out *out, u8 instruction, u64 value, i32 size) {
    u8 bytes[9] = {instruction};
    for (i32 n = 0; n < size; n++) bytes[n + 1] = (u8)(value >> 8 * n);
    return put(out, bytes, size + 1);
}

static int put_integer(Out *out, i64 value) {
    if (value >= 0 && value < 256) return put_bytes(out, 'K', (u64)value, 1);
    if (value >= INT32_MIN && value <= INT32_MAX) return put_bytes(out, 'J', (u64)value, 4);
    return put_byte(out, 0x8a) && put_bytes(out, 8, (u64)value, 8);
}

static int put_pair(Out *out) { return put_byte(out, 0x86); }

static i64 pickled_structure(const u8 *bytes, i64 size, i64 at, i32 depth, Out *out);

/* Writes a value as a pickle. Returns the offset of its end. */
static i64 pickled_value(const u8 *bytes, i64 size, i64 at, i32 kind, i32 depth, Out *out) {
    u64 found;
    if (kind >= I16 && kind <= I64) {
        at = number(bytes, size, at, &found);
        return at >= 0 && put_integer(out, (i64)(found >> 1) ^ -(i64)(found & 1)) ? at : -1;
    }
    if (kind == BINARY) {
        at = number(bytes, size, at, &found);
        if (at < 0 || found > (u64)(size - at) || found > INT32_MAX) return -1;
        int done = found < 256 ? put_bytes(out, 'C', found, 1) : put_bytes(out, 'B', found, 4);
        return done && put(out, bytes + at, (i64)found) ? at + (i64)found : -1;
    }
    if (kind == STRUCT) return pickled_structure(bytes, size, at, depth - 1, out);
    if (kind != LIST || at >= size || depth < 2) return -1;
    i32 of = bytes[at] & 15;
    found = bytes[at++] >> 4;
    if (found == 15) at = number(bytes, size, at, &found);
    if (at < 0 || found > (u64)(size - at) || of == 1 || of == 2) return -1; /* 1 and 2: true and false */
    if (!put_integer(out, of) || !put_byte(out, ']') || !put_byte(out, '(')) return -1;
    for (; found && at >= 0; found--) at = pickled_value(bytes, size, at, of, depth - 1, out);
    return at >= 0 && put_byte(out, 'e') && put_pair(out) ? at : -1;
}

static i64 pickled_structure(const u8 *bytes, i64 size, i64 at, i32 depth, Out *out) {
    if (depth <= 0 || !put_byte(out, '}') || !put_byte(out, '(')) return -1;
    for (i64 field = 0; at >= 0 && at < size;) {
        i32 head = bytes[at++], kind = head & 15;
        u64 id;
        if (!head) return put_byte(out, 'u') ? at : -1;
        if (head >> 4) field += head >> 4;
        else {
            at = number(bytes, size, at, &id);
            if (at < 0 || id > 1 << 16) return -1;
            field = (i64)(id >> 1) ^ -(i64)(id & 1);
        }
        if (!put_integer(out, field) || !put_integer(out, kind)) return -1;
        if (kind == 1 || kind == 2) at = put_byte(out, 'N') ? at : -1; /* true and false */
        else at = pickled_value(bytes, size, at, kind, depth, out);
        if (at >= 0 && !put_pair(out)) return -1;
    }
    return -1;
}

/* Writes the structure that begins at an offset as a pickle, which Python reads much faster than it reads fields: it has
   dictionaries, lists, pairs, integers, bytes and None, and names nothing that Python would run. Returns the offset of its
   end; -2 if there is too little room. */
i64 stedi_pickle(const u8 *bytes, i64 size, i64 at, i64 room, u8 *to) {
    enum { DEEPEST = 24 };                              /* as in `thrift.py` */
    Out out = {to, 0, room, 0};
    at = at < 0 ? -1 : pickled_structure(bytes, size, at, DEEPEST, &out);
    return at >= 0 && put_byte(&out, '.') ? at : out.full ? -2 : -1;
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

/* Writes a field of a structure, a number of 32 bits that is not negative. Returns where it ends. */
static u8 *put_field(u8 *to, i32 step, i64 value) {
    *to++ = (u8)(step << 4 | I32);
    for (value *= 2; value > 127; value >>= 7) *to++ = (u8)(value | 128);
    *to++ = (u8)value;
    return to;
}

/* Writes the header of a data page of version 1, whose levels are encoded as runs, or of a dictionary page. Returns its
   size, at most 40 bytes; -1 if a number is negative or has more than 32 bits. */
i64 stedi_header(i64 dictionary, i64 size, i64 packed, i64 count, i64 encoding, u8 *to) {
    enum { RUNS = 3 };
    if (size < 0 || packed < 0 || count < 0 || encoding < 0) return -1;
    if (size > INT32_MAX || packed > INT32_MAX || count > INT32_MAX || encoding > INT32_MAX) return -1;
    u8 *at = put_field(put_field(put_field(to, 1, dictionary ? 2 : 0), 1, size), 1, packed);
    *at++ = (u8)((dictionary ? 4 : 2) << 4 | STRUCT);
    at = put_field(put_field(at, 1, count), 1, encoding);
    if (!dictionary) at = put_field(put_field(at, 1, RUNS), 1, RUNS);
    *at++ = 0, *at++ = 0;
    return at - to;
}
