/* Reads headers of pages that are almost right by `thrift.c`; AddressSanitizer sees what goes beyond them.

   usage: thrift_fuzz SEED HEADERS
   Each header lies in memory of its own size. Prints how many were taken. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "thrift.c"

const char *__asan_default_options(void) { return "detect_leaks=0"; }

typedef uint32_t u32;

static u64 state;
static u32 dice(u32 sides) {                            /* xorshift64* */
    state ^= state >> 12; state ^= state << 25; state ^= state >> 27;
    return (u32)(((state * 0x2545F4914F6CDD1DULL) >> 32) % sides);
}

static void *sized(size_t size) { void *p = malloc(size ? size : 1); assert(p); return p; }
static i64 least(i64 one, i64 other) { return one < other ? one : other; }

static u8 *put_number(u8 *to, i64 value) {
    u64 left = (u64)value << 1 ^ (u64)(value >> 63);
    for (; left > 127; left >>= 7) *to++ = (u8)(left | 128);
    *to++ = (u8)left;
    return to;
}

/* Writes a structure like a page's header: numbers in its first fields, and inside it further structures, or values of
   any type in any field. */
static u8 *put_structure(u8 *to, i32 depth, u8 most) {
    static const u8 kinds[] = {1, 2, I16, I32, I32, I64, BINARY, LIST, STRUCT};
    i32 fields = 1 + (i32)dice(4), field = 0;
    for (i32 step; fields; fields--, field += step) {
        step = dice(9) ? 1 : 1 + (i32)dice(9);
        i32 nested = depth && (field + step == 5 || field + step == 7) && dice(9);
        u8 kind = nested ? STRUCT : dice(6) ? most : kinds[dice(sizeof kinds)];
        if (kind == STRUCT && !depth) kind = I32;
        if (dice(20)) *to++ = (u8)(step << 4 | kind);
        else { *to++ = kind; to = put_number(to, field + step); }
        if (kind == STRUCT) to = put_structure(to, depth - 1, depth < 3 && dice(3) ? BINARY : I32);
        else if (kind == BINARY) { u32 size = dice(9); *to++ = (u8)size; memset(to, 7, size); to += size; }
        else if (kind == LIST) { u32 size = dice(9); *to++ = (u8)(size << 4 | I32); memset(to, 2, size); to += size; }
        else if (kind > 2) to = put_number(to, dice(9) ? (i64)dice(dice(3) ? 3 : 300) : (i64)((u64)dice(~0U) * dice(~0U)));
    }
    *to++ = 0;
    return to;
}

static volatile u8 sum;                                 /* of all bounds, so that they are read */

/* Writes a structure as a pickle, with too little room or enough. */
static void pickle(const u8 *bytes, i64 size, i64 at) {
    i64 most = 18 * size + 64, rooms[] = {most, dice((u32)most), 0};
    u8 *whole = 0;
    for (i32 n = 0; n < 3; n++) {
        u8 *to = sized((size_t)rooms[n]);
        i64 end = stedi_pickle(bytes, size, at, rooms[n], to);
        assert(end <= size && (end > at || end == -1 || (end == -2 && n)));
        if (whole && end > 0) assert(!memcmp(whole, to, 4));
        if (n || end < 0) free(to);
        else whole = to;
    }
    free(whole);
}

/* Writes headers of pages, and reads them. */
static void write_head(void) {
    i64 told[5];
    for (i32 n = 0; n < 5; n++) told[n] = dice(9) ? (i64)dice(dice(2) ? 200 : 1U << 31) : (i64)((u64)dice(~0U) << 32 | dice(~0U));
    told[0] = dice(2);
    u8 *to = sized(40);
    i64 size = stedi_header(told[0], told[1], told[2], told[3], told[4], to);
    Head head;
    if (size >= 0) {
        assert(size <= 40 && stedi_head(to, size, 0, &head) == size);
        assert(head.kind == 2 * told[0] && head.size == told[1] && head.packed == told[2]);
        assert((told[0] ? head.entries : head.count) == told[3]);
        assert((told[0] ? head.dictionary_encoding : head.encoding) == told[4]);
    }
    free(to);
}

/* Reads the header of a page that is almost right. Returns whether it was taken. */
static int read_head(void) {
    u8 made[4096];
    i64 size = put_structure(made, 3, I32) - made, before = dice(4), end;
    for (u32 changes = dice(3) ? 0 : 1 + dice(3); changes; changes--) made[dice((u32)size)] = (u8)dice(256);
    if (!dice(9)) size = dice((u32)size + 1);
    u8 *bytes = sized((size_t)(before + size));
    memset(bytes, 0, (size_t)before);
    memcpy(bytes + before, made, (size_t)size);
    Head head;
    end = stedi_head(bytes, before + size, before, &head);
    assert(end <= before + size && (end < 0 || (end > before && !bytes[end - 1])));
    for (i32 n = 0; end >= 0 && n < 4; n++) {
        Part part = head.bounds[n];
        assert(part.at < 0 ? part.at == -1 && part.size == -1 : part.at > before && part.size >= 0 && part.size < end - part.at);
        for (i64 at = 0; at < part.size; at++) sum += bytes[part.at + at];
    }
    /* as the only page of a chunk, or one of several */
    i64 most = dice(3), count;
    Found *found = sized((size_t)most * sizeof *found);
    count = stedi_heads(bytes + before, size, most, found);
    for (i64 n = 0; n < least(count, most); n++) {
        assert(found[n].begin == (n ? found[n - 1].end : 0) && found[n].begin < found[n].body);
        assert(found[n].body <= found[n].end && found[n].end <= size);
        assert(!found[n].head.kind || (found[n].head.kind == 2 && !n));
    }
    free(found);
    pickle(bytes, before + size, before);
    write_head();
    free(bytes);
    return end >= 0;
}

int main(int count, char **words) {
    assert(count == 3);
    state = strtoull(words[1], 0, 10) * 2 + 1;
    i64 taken = 0;
    for (i64 number = strtoll(words[2], 0, 10); number; number--) taken += read_head();
    printf("%lld\n", (long long)taken);
    return 0;
}
