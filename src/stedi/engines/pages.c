/* Removes rows from pages of Parquet files: encoded numbers are unpacked, filtered and packed again; values are copied
   unchanged.

   Pages are of flat columns: definition levels of one bit if values can be missing, then plain values (PLAIN: 64 or
   32 bits, or a text preceded by its length) or dictionary indices (RLE_DICTIONARY). The rows to keep are given as ordered
   ranges [from, to) of the row group's rows. Every function returns a negative number if a page is invalid, and never
   reads or writes outside of the memory that it was given.

   The library uses no Python and keeps no state: it is called through ctypes, so other threads run at the same time. */
#include <stdint.h>
#include <string.h>

typedef int32_t i32;
typedef int64_t i64;
typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

enum { TEXT = 0, WHOLE = 1, DOUBLE = 2, DAY = 3 };      /* types of a column's values: a text, 64 bits, or 32 */

#ifndef STEDI_SOURCE
#define STEDI_SOURCE 0
#endif
u64 stedi_source(void) { return STEDI_SOURCE; }

typedef struct {
    const u8 *bytes; i64 size;                          /* the page's bytes, decompressed */
    i64 count, first;                                   /* its number of rows; its first row in the row group */
    i32 optional;                                       /* whether values can be missing */
    const i64 *ranges; i64 ranges_count;                /* the rows to keep */
    u32 *codes, *levels;                                /* buffers for one number per row */
    i64 rows, present, values;                          /* output: kept rows; values of kept rows; values of all rows */
    i32 decoded;                                        /* whether `codes` and `levels` are those of all rows */
    i64 highest;                                        /* output: the highest dictionary index; -1 if there is none */
} Page;

typedef struct { i64 low, high; i32 some, nan; } Bounds; /* doubles are stored by their bits */

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default"))) /* compiled twice: the processor decides which one runs */
#else
#define WIDE
#endif

static u64 word(const u8 *at) { u64 value; memcpy(&value, at, 8); return value; }

/* Reads the head of a run at an offset. Returns the offset of its end. */
static i64 run_head(const u8 *from, i64 size, i64 at, u64 *head) {
    *head = 0;
    for (i32 shift = 0; at < size && shift <= 28; shift += 7) {
        *head |= (u64)(from[at] & 127) << shift;
        if (from[at++] < 128) return at;
    }
    return -1;
}

/* Unpacks numbers of `width` bits, stored as runs of equal numbers or groups of eight. Returns their encoded size. */
WIDE static i64 unpack(const u8 *from, i64 size, i32 width, i64 count, u32 *to) {
    i64 at = 0, done = 0, bytes = (width + 7) / 8;
    u64 mask = ((u64)1 << width) - 1;
    while (done < count) {
        u64 head;
        at = run_head(from, size, at, &head);
        if (at < 0 || !(head >> 1)) return -1;
        if (head & 1) {
            i64 groups = (i64)(head >> 1), left = groups * 8 < count - done ? groups * 8 : count - done;
            if ((size - at) / (width ? width : 1) < (width ? groups : 0)) return -1;
            const u8 *start = from + at, *end = from + size;
            i64 n = 0;
            if (width && width <= 8)                    /* eight numbers fit into one word */
                for (; left - n >= 8 && end - start - n / 8 * width >= 8; n += 8) {
                    u64 eight = word(start + n / 8 * width);
                    for (i32 k = 0; k < 8; k++) to[done + n + k] = (u32)(eight >> (k * width) & mask);
                }
            for (i64 bit = n * width; n < left; n++, bit += width) {
                const u8 *here = start + (bit >> 3);
                u64 value = 0;
                if (end - here >= 8) value = word(here);
                else if (width) memcpy(&value, here, (size_t)(end - here));
                to[done + n] = (u32)(value >> (bit & 7) & mask);
            }
            at += groups * width;
            done += left;
        } else {
            i64 run = (i64)(head >> 1), left = run < count - done ? run : count - done;
            u64 value = 0;
            if (size - at < bytes) return -1;
            memcpy(&value, from + at, (size_t)bytes);
            at += bytes;
            if (value > mask) return -1;
            for (i64 n = 0; n < left; n++) to[done + n] = (u32)value;
            done += left;
        }
    }
    return at;
}

static i64 varint(u64 value, u8 *to) {
    i64 at = 0;
    for (; value > 127; value >>= 7) to[at++] = (u8)(value | 128);
    to[at++] = (u8)value;
    return at;
}

/* Packs numbers, each of at most `width` bits; writes at most (count / 8 + 1) * (width + 10) bytes and returns how
   many. */
WIDE static i64 pack(const u32 *from, i64 count, i32 width, u8 *to) {
    i64 out = 0, at = 0;
    while (at < count) {
        i64 run = at + 1;
        while (run < count && from[run] == from[at]) run++;
        if (run - at >= 8) {
            out += varint((u64)(run - at) << 1, to + out);
            for (i32 n = 0; n < width; n += 8) to[out++] = (u8)(from[at] >> n);
            at = run;
            continue;
        }
        i64 end = at;
        for (i64 same = 0; end < count && same < 8;) {
            end += 8;
            for (same = 0; same < 8 && end + same < count && from[end + same] == from[end];) same++;
        }
        out += varint((u64)((end - at) / 8) << 1 | 1, to + out);
        if (width <= 8)                                 /* eight numbers fit into one word */
            for (; end <= count && at < end; at += 8) {
                u64 held = 0;
                for (i32 n = 0; n < 8; n++) held |= (u64)from[at + n] << n * width;
                memcpy(to + out, &held, 8);
                out += width;
            }
        for (; at < end; at += 8) {                     /* eight numbers fill whole bytes */
            u64 held = 0;
            i32 bits = 0;
            for (i64 n = at; n < at + 8; n++) {
                held |= (u64)(n < count ? from[n] : 0) << bits;
                if ((bits += width) < 32) continue;
                u32 half = (u32)held;
                memcpy(to + out, &half, 4);
                out += 4, bits -= 32, held >>= 32;
            }
            for (; bits > 0; bits -= 8, held >>= 8) to[out++] = (u8)held;
        }
    }
    return out;
}

/* Reads a page's definition levels and sets *values to its number of values. Returns the offset of the values. Levels
   are only set if a value is missing. */
static i64 defined(Page *page, i64 *values) {
    *values = page->values = page->count;
    if (!page->optional) return 0;
    if (page->size < 4) return -1;
    u32 length;
    u64 run;
    memcpy(&length, page->bytes, 4);
    if (length > page->size - 4) return -1;
    i64 end = run_head(page->bytes + 4, length, 0, &run);
    if (end > 0 && end < length && !(run & 1) && (i64)(run >> 1) >= page->count && page->bytes[4 + end] == 1)
        return 4 + (i64)length;                         /* one run: no value is missing */
    if (unpack(page->bytes + 4, length, 1, page->count, page->levels) < 0) return -1;
    *values = 0;
    for (i64 row = 0; row < page->count; row++) *values += page->levels[row];
    page->values = *values;
    return 4 + (i64)length;
}

/* Returns the greatest of some numbers; 0 of none. */
WIDE static u32 most(const u32 *from, i64 count) {
    u32 found = 0;
    for (i64 n = 0; n < count; n++) found = from[n] > found ? from[n] : found;
    return found;
}

/* Reads a page's dictionary indices, each less than `entries`. Returns the page's number of values. */
static i64 places(Page *page, i64 entries) {
    if (page->decoded) return page->values;
    i64 values, at = defined(page, &values);
    page->highest = -1;
    if (at < 0) return -1;
    if (!values) return 0;
    if (at >= page->size || page->bytes[at] > 31) return -1;
    if (unpack(page->bytes + at + 1, page->size - at - 1, page->bytes[at], values, page->codes) < 0) return -1;
    page->highest = most(page->codes, values);
    if (page->highest >= entries) return -1;
    page->decoded = 1;
    return values;
}

/* Sets [*from, *to) to the next range of rows to keep, counted from the page's first row. Returns 0 if none is left. */
static int next(const Page *page, i64 *range, i64 *from, i64 *to) {
    for (; *range < page->ranges_count; ++*range) {
        i64 begin = page->ranges[2 * *range] - page->first, end = page->ranges[2 * *range + 1] - page->first;
        if (begin >= page->count) return 0;
        *from = begin < 0 ? 0 : begin;
        *to = end > page->count ? page->count : end;
        if (*from < *to) { ++*range; return 1; }
    }
    return 0;
}

static void set(u8 *used, const u32 *codes, i64 count) { for (i64 n = 0; n < count; n++) used[codes[n]] = 1; }

/* Sets each row's mark to the flag of its value's dictionary entry; 0 for a missing value. Sets `used` for each entry
   that a row has. */
i64 stedi_mark(Page *page, i64 entries, const u8 *flags, u8 *marks, u8 *used) {
    i64 values = places(page, entries);
    if (values < 0) return -1;
    const u32 *codes = page->codes, *levels = values < page->count ? page->levels : 0;
    for (i64 row = 0, count = page->count; row < count; row++) {
        marks[row] = 0;
        if (levels && !levels[row]) continue;
        u32 code = *codes++;
        marks[row] = flags[code];
        used[code] = 1;
    }
    return 0;
}

/* Sets `kept` for each dictionary entry that a row to keep has, and `removed` for each that another row has. It ends when
   all entries of a small dictionary are known to stay. */
i64 stedi_used(Page *page, i64 entries, u8 *kept, u8 *removed) {
    enum { PART = 1024 };
    i64 values = places(page, entries), row = 0, at = 0;
    if (values < 0) return -1;
    for (i64 range = 0, from, to; row < page->count; ) {
        if (!next(page, &range, &from, &to)) from = to = page->count;
        i64 first = at, second;
        if (values == page->count) first = from, second = to;
        else {
            for (; row < from; row++) first += page->levels[row];
            second = first;
            for (; row < to; row++) second += page->levels[row];
        }
        set(removed, page->codes + at, first - at);
        for (i64 n = first, part; n < second; n += part) {
            part = second - n < PART ? second - n : PART;
            set(kept, page->codes + n, part);
            if (entries < PART && !memchr(kept, 0, (size_t)entries)) return 0;
        }
        row = to;
        at = second;
    }
    return 0;
}

/* Writes the ranges of rows with a mark, 0 or 1, if `ranges` is not null. Returns the number of ranges, which is at
   most (rows + 1) / 2. */
i64 stedi_ranges(const u8 *marks, i64 rows, u8 mark, i64 *ranges) {
    i64 count = 0;
    for (i64 row = 0; row < rows; count++) {
        const u8 *start = memchr(marks + row, mark, (size_t)(rows - row));
        if (!start) break;
        const u8 *end = memchr(start, !mark, (size_t)(marks + rows - start));
        row = end ? end - marks : rows;
        if (ranges) ranges[2 * count] = start - marks, ranges[2 * count + 1] = row;
    }
    return count;
}

/* Filters dictionary indices and levels to the rows to keep. Returns the number of values kept. */
i64 stedi_codes(Page *page, i64 entries) {
    i64 values = places(page, entries), kept = 0, at = 0, row = 0;
    if (values < 0) return -1;
    page->rows = page->decoded = 0;
    for (i64 range = 0, from, to; next(page, &range, &from, &to);) {
        if (values == page->count) {
            memmove(page->codes + kept, page->codes + from, (size_t)(to - from) * sizeof *page->codes);
            kept += to - from;
        } else {
            for (; row < from; row++) at += page->levels[row];
            for (; row < to; row++) if (page->levels[row]) page->codes[kept++] = page->codes[at++];
        }
        if (values < page->count)
            memmove(page->levels + page->rows, page->levels + from, (size_t)(to - from) * sizeof *page->levels);
        page->rows += to - from;
    }
    return page->present = kept;
}

static i64 put_levels(const u32 *levels, i64 rows, u8 *to) {
    i64 length = pack(levels, rows, 1, to + 4);
    u32 head = (u32)length;
    memcpy(to, &head, 4);
    return 4 + length;
}

/* Writes the levels of a page's kept rows: a run of ones if the page has no level because no value is missing. */
static i64 put_kept_levels(const Page *page, u8 *to) {
    if (page->values < page->count) return put_levels(page->levels, page->rows, to);
    u32 length = (u32)varint((u64)page->rows << 1, to + 4);
    to[4 + length++] = 1;
    memcpy(to, &length, 4);
    return 4 + length;
}

/* Writes a page of dictionary indices with those of the rows to keep, or with the new index of each if `renumbered` is
   not null. Returns its size, at most 4 + (rows / 8 + 1) * 11 for the levels, plus 1 + (rows / 8 + 1) * (width + 10). */
i64 stedi_indices(Page *page, i64 entries, const u32 *renumbered, i32 width, u8 *to) {
    i64 values = stedi_codes(page, entries);
    if (values < 0) return -1;
    i64 at = page->optional ? put_kept_levels(page, to) : 0;
    u32 *codes = page->codes;
    if (renumbered) for (i64 n = 0; n < values; n++) codes[n] = renumbered[codes[n]];
    to[at++] = (u8)width;
    return at + pack(codes, values, width, to + at);
}

/* The size of a value that is no text. */
static i64 width_of(i32 kind) { return kind == DAY ? 4 : 8; }

static void bound(Bounds *bounds, const u8 *value, i32 kind) {
    i64 bits;
    if (kind == DAY) {
        i32 day;
        memcpy(&day, value, 4);
        bits = day;
    } else memcpy(&bits, value, 8);
    if (kind == DOUBLE) {
        double number, low, high;
        memcpy(&number, value, 8); memcpy(&low, &bounds->low, 8); memcpy(&high, &bounds->high, 8);
        if (number != number) { bounds->nan = 1; return; }
        if (!bounds->some || number < low) bounds->low = bits;
        if (!bounds->some || number > high) bounds->high = bits;
    } else {
        if (!bounds->some || bits < bounds->low) bounds->low = bits;
        if (!bounds->some || bits > bounds->high) bounds->high = bits;
    }
    bounds->some = 1;
}

/* Returns the size of the next value; -1 if it does not fit in the `left` bytes. */
static i64 size_of(const u8 *at, i64 left, i32 kind) {
    if (kind != TEXT) return left < width_of(kind) ? -1 : width_of(kind);
    u32 length;
    if (left < 4) return -1;
    memcpy(&length, at, 4);
    return length > left - 4 ? -1 : 4 + (i64)length;
}

/* Widens bounds, if they are not null, by values one after the other. */
static void widen(Bounds *bounds, const u8 *values, i64 count, i32 kind) {
    if (bounds) for (i64 n = 0, width = width_of(kind); n < count; n++) bound(bounds, values + width * n, kind);
}

/* Writes a page of plain values with those of the rows to keep. Widens `kept` by their values, and `removed` by those of
   the other rows, unless they are null or the values are texts. Returns its size, at most the size of the page plus
   4 + (rows / 8 + 1) * 11. */
i64 stedi_plain(Page *page, i32 kind, Bounds *kept, Bounds *removed, u8 *to) {
    i64 values, at = defined(page, &values), row = 0, out = 0, width = width_of(kind), range = 0, from, end_row;
    if (at < 0) return -1;
    const u8 *here = page->bytes + at, *end = page->bytes + page->size;
    if (kind != TEXT && values > (page->size - at) / width) return -1;
    if (kind == TEXT) kept = removed = 0;
    page->rows = page->present = 0;
    u8 *body = to + (page->optional ? 4 + (page->count / 8 + 1) * 11 : 0);
    while (row < page->count) {
        if (!next(page, &range, &from, &end_row)) from = end_row = page->count;
        if (kind != TEXT && values == page->count) {
            const u8 *start = here + width * from;
            widen(removed, here + width * row, from - row, kind);
            widen(kept, start, end_row - from, kind);
            memcpy(body + out, start, (size_t)(width * (end_row - from)));
            out += width * (end_row - from);
            page->present += end_row - from;
            row = end_row;
        } else {
            for (; row < end_row; row++) {
                if (values < page->count && !page->levels[row]) continue;
                i64 size = size_of(here, end - here, kind);
                if (size < 0) return -1;
                widen(row < from ? removed : kept, here, 1, kind);
                if (row >= from) {
                    memcpy(body + out, here, (size_t)size);
                    out += size;
                    page->present++;
                }
                here += size;
            }
        }
        if (values < page->count)
            memmove(page->levels + page->rows, page->levels + from, (size_t)(end_row - from) * sizeof *page->levels);
        page->rows += end_row - from;
    }
    i64 before = page->optional ? put_kept_levels(page, to) : 0;
    memmove(to + before, body, (size_t)out);
    return before + out;
}

/* Writes the first `entries` texts of a dictionary with `between` after each one. Returns the size of what is written,
   at most that of the dictionary; -2 if a text contains `between`. */
i64 stedi_texts(const u8 *bytes, i64 size, i64 entries, u8 between, u8 *to) {
    i64 at = 0, out = 0;
    for (i64 entry = 0; entry < entries; entry++) {
        i64 length = size_of(bytes + at, size - at, TEXT);
        if (length < 0) return -1;
        if (memchr(bytes + at + 4, between, (size_t)length - 4)) return -2;
        memcpy(to + out, bytes + at + 4, (size_t)length - 4);
        out += length - 4;
        to[out++] = between;
        at += length;
    }
    return out;
}

/* Writes a dictionary with only the used entries, sets `renumbered` to the new index of each, and sets *left to their
   number. The last ones take the places of those that are left out: the others keep their index, and so do the pages that
   have no others. Returns the dictionary's size, which is at most its old size. */
i64 stedi_dictionary(const u8 *bytes, i64 size, i64 entries, i32 kind, const u8 *used, u32 *renumbered,
                     Bounds *bounds, i64 *left, u8 *to) {
    i64 at = 0, out = 0, count = 0, last_at = 0;
    for (i64 entry = 0; entry < entries; entry++) count += used[entry] != 0;
    for (i64 entry = 0; entry < entries; entry++) {
        i64 length = size_of(bytes + at, size - at, kind);
        if (length < 0) return -1;
        if (entry == count) last_at = at;
        at += length;
    }
    if (at != size) return -1;
    at = 0;
    for (i64 entry = 0, last = count; entry < count; entry++) {
        i64 length = size_of(bytes + at, size - at, kind), from = at, taken = entry;
        at += length;
        if (!used[entry]) {
            for (; !used[last]; last++) last_at += size_of(bytes + last_at, size - last_at, kind);
            taken = last++, from = last_at, length = size_of(bytes + from, size - from, kind);
            last_at += length;
        }
        memcpy(to + out, bytes + from, (size_t)length);
        if (kind != TEXT) bound(bounds, bytes + from, kind);
        renumbered[taken] = (u32)entry;
        out += length;
    }
    *left = count;
    return out;
}
