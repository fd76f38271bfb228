/* Gives `dictionaries.c` pages of random texts, several to each memory of texts, and compares what it returns with a plain
   list of the texts that were there before.

   usage: dictionaries_fuzz SEED PAGES
   All memory has exactly its size, so that AddressSanitizer sees an access beyond it. Prints how many pages were whole.
   */
#include <assert.h>
#include <stdio.h>
#include "dictionaries.c"

static u64 state;
static u32 dice(u32 sides) {                            /* xorshift64* */
    state ^= state >> 12; state ^= state << 25; state ^= state >> 27;
    return (u32)(((state * 0x2545F4914F6CDD1DULL) >> 32) % sides);
}

static u8 *sized(i64 size) { u8 *p = malloc(size ? (size_t)size : 1); assert(p); return p; }

enum { MOST = 4000, TEXTS = 300, SOME = 9 };

static struct { i64 length; u8 bytes[300]; } met[TEXTS * SOME];

static i64 place(i64 count, const u8 *text, i64 length) {
    i64 at = 0;
    while (at < count && (met[at].length != length || memcmp(met[at].bytes, text, (size_t)length))) at++;
    return at;
}

/* Changes a text of 12 bytes so that its hash is that of all others that were changed: of the last slot. */
static void same_hash(u8 *text) {
    u64 half;
    memcpy(&half, text, 8);
    u64 hash = (16 ^ half) * 0x9E3779B97F4A7C15;        /* as `hashed` begins */
    hash ^= hash >> 32 ^ 0x189a;
    memcpy(text + 8, &hash, 8);
}

int main(int words, char **word) {
    assert(words == 3);
    state = strtoull(word[1], 0, 10) * 2 + 1;
    i64 whole = 0, left = strtoll(word[2], 0, 10);
    while (left > 0) {
        /* sometimes not all texts, or bytes, are remembered: then a text may be returned again */
        i64 most = dice(4) ? TEXTS * SOME : dice(20), most_bytes = dice(4) ? 1 << 20 : dice(200), count = 0, alike = 0;
        Known *known = stedi_known(most, most_bytes);
        assert(known);
        for (u32 pages = 1 + dice(dice(8) ? 4 : TEXTS); pages && left > 0; pages--, left--) {
            u8 given[MOST], expected[MOST];
            i64 size = 0, written = 0, before = count;
            int bad = 0;
            for (u32 texts = dice(SOME); texts; texts--) {
                i64 begin = size + LENGTH, length = dice(9) ? dice(13) : dice(300);
                u32 letters = dice(2) ? 2 : 26;
                given[size] = (u8)length; given[size + 1] = (u8)(length >> 8); given[size + 2] = given[size + 3] = 0;
                for (size += LENGTH; size < begin + length; size++)
                    given[size] = dice(300) ? (u8)('a' + dice(letters)) : (u8)dice(256);
                if (length == 12 && alike < PROBES / 2 && ++alike) same_hash(given + begin - LENGTH);
                bad |= memchr(given + begin, 31, (size_t)length) != 0;
                if (place(count, given + begin, length) < count) continue;
                met[count].length = length;
                memcpy(met[count++].bytes, given + begin, (size_t)length);
                memcpy(expected + written, given + begin, (size_t)length);
                written += length;
                expected[written++] = 31;
            }
            int damaged = !dice(30) && size;
            if (damaged && dice(2)) size -= 1 + dice((u32)(size < 9 ? size : 9));
            else if (damaged) given[dice((u32)size)] = dice(2) ? 255 : (u8)dice(256);
            u8 *page = sized(size), *to = sized(size);
            memcpy(page, given, (size_t)size);
            i64 found = stedi_new(known, page, size, 31, to);
            assert(found <= size && known->count <= most && known->size <= most_bytes);
            if (damaged) {
                pages = 1;                              /* what is known now is not told here */
            } else if (bad) {
                assert(found == -1);
                count = before;
            } else {
                if (most < TEXTS || most_bytes < 1 << 20) {
                    assert(found >= written);           /* each text that is new is among them */
                    for (i64 at = 0, end; at < written; at = end) {
                        for (end = at; expected[end++] != 31;) {}
                        i64 from = 0;
                        while (from < found && memcmp(to + from, expected + at, (size_t)(end - at)))
                            while (to[from++] != 31) {}
                        assert(from < found);
                    }
                } else assert(found == written && !memcmp(to, expected, (size_t)written));
                whole++;
            }
            free(page); free(to);
        }
        stedi_forget(known);
    }
    printf("%lld\n", (long long)whole);
    return 0;
}
