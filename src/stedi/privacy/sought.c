/* Finds which of many texts another text contains, in one pass over its bytes.

   A window is some consecutive bytes of a sought text, up to 8: the ones that the fewest sought texts have. A hash table
   holds them. At each place of a text, the bytes there are looked up, and behind a window the whole sought text is
   compared. Texts are UTF-8, of which no character is part of another: bytes are equal where characters are.

   The library uses no Python and keeps no state: it is called through ctypes, so other threads run at the same time. */
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef int32_t i32;
typedef int64_t i64;
typedef uint32_t u32;
typedef uint64_t u64;

enum { WIDTHS = 5 };                                    /* of windows: a text has the widest that it has room for */
static const i64 WIDTH[WIDTHS] = {1, 2, 3, 4, 8};
static const u64 MASK[WIDTHS] = {0xFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFF, UINT64_MAX};

#ifndef STEDI_SOURCE
#define STEDI_SOURCE 0
#endif
u64 stedi_source(void) { return STEDI_SOURCE; }

/* The sought texts and their table, made by `stedi_prepare`; all arrays belong to the caller. */
typedef struct {
    const u8 *bytes;                                    /* the texts, one after the other; none is empty */
    const i64 *ends;                                    /* where each of `count` ends */
    i64 count;
    i32 bits;                                           /* the table has 1 << bits slots, 0 < bits < 33 */
    i32 widths;                                         /* bit by bit, which widths windows have */
    u32 *first;                                         /* a slot's first text, plus one; zeros before */
    u32 *next;                                          /* a text's next one in the same slot, plus one */
    i64 *offsets;                                       /* where the window is in a text */
} Sought;

/* The bytes at a place as a little-endian number, on every machine; zeros behind the end. */
static u64 word(const u8 *text, i64 left) {
    u64 value = 0;
    if (left >= 8) {
        memcpy(&value, text, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        value = __builtin_bswap64(value);
#endif
        return value;
    }
    for (i64 place = 0; place < left; place++) value |= (u64)text[place] << (8 * place);
    return value;
}

static u64 slot(u64 value, i32 width, i32 bits) {
    return ((value & MASK[width]) + (u64)width) * 0x9E3779B97F4A7C15u >> (64 - bits);
}

static i32 width_of(i64 size) {
    i32 width = 0;
    while (width + 1 < WIDTHS && WIDTH[width + 1] <= size) width++;
    return width;
}

/* Fills the table. */
void stedi_prepare(Sought *sought) {
    const i64 *ends = sought->ends;
    sought->widths = 0;
    for (i64 text = 0, begin = 0; text < sought->count; begin = ends[text++]) {
        i32 width = width_of(ends[text] - begin);
        for (i64 at = begin; at + WIDTH[width] <= ends[text]; at++)     /* slots count windows until all are chosen */
            sought->first[slot(word(sought->bytes + at, ends[text] - at), width, sought->bits)]++;
    }
    for (i64 text = 0, begin = 0; text < sought->count; begin = ends[text++]) {
        i32 width = width_of(ends[text] - begin);
        u32 least = UINT32_MAX;
        for (i64 at = begin; at + WIDTH[width] <= ends[text]; at++) {
            u32 those = sought->first[slot(word(sought->bytes + at, ends[text] - at), width, sought->bits)];
            if (those < least) { least = those; sought->offsets[text] = at - begin; }
        }
    }
    memset(sought->first, 0, sizeof *sought->first << sought->bits);
    for (i64 text = 0, begin = 0; text < sought->count; begin = ends[text++]) {
        i32 width = width_of(ends[text] - begin);
        i64 at = begin + sought->offsets[text];
        u32 *first = sought->first + slot(word(sought->bytes + at, ends[text] - at), width, sought->bits);
        sought->next[text] = *first;
        *first = (u32)text + 1;
        sought->widths |= 1 << width;
    }
}

/* Marks in `found` the sought texts that a text contains, and returns how many are marked that were not. */
i64 stedi_contained(const Sought *sought, const u8 *text, i64 size, u8 *found) {
    const u32 *firsts = sought->first;                  /* not read again after each byte that is written */
    i32 widths[WIDTHS], many = 0, bits = sought->bits;
    i64 result = 0;
    for (i32 width = 0; width < WIDTHS; width++)
        if (sought->widths >> width & 1) widths[many++] = width;
    for (i64 at = 0; at < size; at++) {
        u64 value = word(text + at, size - at);
        for (i32 place = 0; place < many; place++)
            for (u32 one = firsts[slot(value, widths[place], bits)]; one; one = sought->next[one - 1]) {
                i64 begin = one > 1 ? sought->ends[one - 2] : 0, length = sought->ends[one - 1] - begin;
                i64 start = at - sought->offsets[one - 1];
                if (found[one - 1] || start < 0 || length > size - start) continue;
                if (memcmp(text + start, sought->bytes + begin, (size_t)length)) continue;
                found[one - 1] = 1;
                result++;
            }
    }
    return result;
}
