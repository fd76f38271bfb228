/* Takes plain texts of Parquet apart: each is stored after its length, four bytes, little-endian.

   The library uses no Python and keeps no state: it is called through ctypes, so other threads run at the same time. */
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef int64_t i64;
typedef uint64_t u64;

enum { LENGTH = 4 };

#ifndef STEDI_SOURCE
#define STEDI_SOURCE 0
#endif
u64 stedi_source(void) { return STEDI_SOURCE; }

/* Copies the texts in `size` bytes, a separator behind each; `to` has room for as many bytes. Returns how many it has
   written; -1 if the bytes are not texts to their end, or if a text contains the separator. */
i64 stedi_split(const u8 *bytes, i64 size, u8 separator, u8 *to) {
    i64 written = 0;
    for (i64 at = 0; at < size;) {
        if (size - at < LENGTH) return -1;
        i64 length = (i64)bytes[at] | (i64)bytes[at + 1] << 8 | (i64)bytes[at + 2] << 16 | (i64)bytes[at + 3] << 24;
        at += LENGTH;
        if (length > size - at || memchr(bytes + at, separator, (size_t)length)) return -1;
        memcpy(to + written, bytes + at, (size_t)length);
        at += length;
        written += length;
        to[written++] = separator;
    }
    return written;
}
