/* Takes plain texts of Parquet apart, and tells those that were there before: each is stored after its length, four bytes,
   little-endian.

   The library uses no Python and keeps no state but what `stedi_known` returns, which one thread uses at a time: it is
   called through ctypes, so other threads run at the same time. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef int64_t i64;
typedef uint64_t u64;

enum {
    LENGTH = 4,
    FEWEST_BITS = 8,                                    /* of the number of slots */
    PROBES = 64                                         /* slots for one text: crafted ones must not share all slots */
};

typedef struct {
    u64 *slots;                                         /* a text's hash and, below it, its place in `texts` plus one */
    u8 *texts;                                          /* each after its length, as in a page */
    i64 bits, count, size, room;                        /* of the slots; the number of texts, their bytes, their memory */
    i64 most, most_bytes;                               /* texts beyond these are not remembered */
} Known;

#ifndef STEDI_SOURCE
#define STEDI_SOURCE 0
#endif
u64 stedi_source(void) { return STEDI_SOURCE; }

/* Returns the end of the text that begins at an offset, after its length; it may lie beyond the bytes. */
static i64 text_end(const u8 *bytes, i64 at) {
    const u8 *length = bytes + at;
    return at + LENGTH + ((i64)length[0] | (i64)length[1] << 8 | (i64)length[2] << 16 | (i64)length[3] << 24);
}

/* Returns whether bytes are texts to their end, none of which contains the separator. */
static int are_texts(const u8 *bytes, i64 size, u8 separator) {
    for (i64 at = 0, end; at < size; at = end) {
        if (size - at < LENGTH) return 0;
        end = text_end(bytes, at);
        if (end > size || memchr(bytes + at + LENGTH, separator, (size_t)(end - at - LENGTH))) return 0;
    }
    return 1;
}

static u32 hashed(const u8 *bytes, i64 size) {
    u64 hash = (u64)size, word;
    for (; size >= 8; bytes += 8, size -= 8) {
        memcpy(&word, bytes, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15;
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, bytes, (size_t)size);
    hash = (hash ^ word) * 0x9E3779B97F4A7C15;
    hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93;    /* the bits that choose the slot depend on all others */
    return (u32)(hash >> 32);
}

/* Returns the slot of a text, or a free one; null if there is neither among those that are tried. */
static u64 *slot_of(const Known *known, u32 hash, const u8 *text, i64 size) {
    u64 mask = ((u64)1 << known->bits) - 1;
    for (u32 probe = 0; probe < PROBES; probe++) {
        u64 *slot = known->slots + ((hash + probe) & mask);
        if (!*slot) return slot;
        i64 at = (i64)(u32)*slot - 1;
        /* the length is compared first: so many bytes are there, then */
        if (*slot >> 32 == hash && !memcmp(known->texts + at, text, LENGTH) && !memcmp(known->texts + at, text, (size_t)size))
            return slot;
    }
    return 0;
}

/* Doubles the slots, if so many texts need it. Returns whether there are enough. */
static int grown(Known *known) {
    if (2 * known->count < (i64)1 << known->bits) return 1;
    u64 *slots = calloc((size_t)2 << known->bits, sizeof *slots), *before = known->slots, mask = ((u64)2 << known->bits) - 1;
    if (!slots) return 0;
    for (i64 n = 0; n < (i64)1 << known->bits; n++) {
        if (!before[n]) continue;
        u64 at = before[n] >> 32 & mask;
        while (slots[at]) at = (at + 1) & mask;
        slots[at] = before[n];
    }
    free(before);
    known->slots = slots;
    known->bits++;
    return 1;
}

/* Remembers a text in a free slot, if there is memory for it. */
static void remember(Known *known, u64 *slot, u32 hash, const u8 *text, i64 size) {
    if (known->count >= known->most || size > known->most_bytes - known->size) return;
    if (size > known->room - known->size) {
        i64 room = 2 * (known->size + size);
        u8 *texts = realloc(known->texts, (size_t)room);
        if (!texts) return;
        known->texts = texts;
        known->room = room;
    }
    memcpy(known->texts + known->size, text, (size_t)size);
    *slot = (u64)hash << 32 | (u32)(known->size + 1);
    known->size += size;
    known->count++;
}

/* Returns a memory of texts: of so many, of so many bytes with their lengths, at most; null if there is none. */
Known *stedi_known(i64 most, i64 most_bytes) {
    Known *known = calloc(1, sizeof *known);
    if (!known) return 0;
    *known = (Known){ .bits = FEWEST_BITS, .most = most, .most_bytes = most_bytes < UINT32_MAX ? most_bytes : UINT32_MAX - 1 };
    known->slots = calloc((size_t)1 << known->bits, sizeof *known->slots);
    if (known->slots) return known;
    free(known);
    return 0;
}

void stedi_forget(Known *known) {
    free(known->slots);
    free(known->texts);
    free(known);
}

/* Copies those of the texts in `size` bytes that were never there before, a separator behind each; `to` has room for as
   many bytes. What cannot be remembered is copied each time. Returns how many bytes it has written; -1 if the bytes are
   not texts to their end, or if a text contains the separator: then none of them counts as known. */
i64 stedi_new(Known *known, const u8 *bytes, i64 size, u8 separator, u8 *to) {
    i64 written = 0;
    if (!are_texts(bytes, size, separator)) return -1;
    for (i64 at = 0, end; at < size; at = end) {
        end = text_end(bytes, at);
        u32 hash = hashed(bytes + at, end - at);
        u64 *slot = grown(known) ? slot_of(known, hash, bytes + at, end - at) : 0;
        if (slot && *slot) continue;
        if (slot) remember(known, slot, hash, bytes + at, end - at);
        memcpy(to + written, bytes + at + LENGTH, (size_t)(end - at - LENGTH));
        written += end - at - LENGTH;
        to[written++] = separator;
    }
    return written;
}
