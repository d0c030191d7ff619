// Changes to the images of a log and of a wal-index that need not make sense.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_TAMPER_H_
#define GROUPCOMMIT_TESTS_SUPPORT_TAMPER_H_

#include <cstddef>
#include <cstdint>
#include <random>

#include "support/file_image.h"

namespace groupcommit::testing {

using Random = std::mt19937;

// At random: a number below `n`; true once in `n` times.
inline size_t Below(Random& random, size_t n) { return random() % n; }
inline bool OneIn(Random& random, size_t n) { return Below(random, n) == 0; }

// For any number in a log.
inline constexpr uint32_t kAbsurdNumbers[] = {0,     1,     2,      511,        513,
                                              65535, 65536, 131072, 0x7fffffff, 0xffffffff};

// What stock SQLite takes a valid header of a wal-index at its word for, though it should not: a
// log of 2^32 frames fills the disk with wal-index; with pages larger than the true ones it reads
// beyond its buffers.
inline constexpr uint32_t kMaxIndexFrames = 4000;
inline constexpr uint16_t kIndexPageSizes[] = {0, 512, 1024};

// A few changes, none at times. About half of the time all checksums are right afterwards. `other`
// is the image of another database, with the same page size of 1024.
Bytes TamperedLog(Random& random, Bytes log, const Bytes& other);
Bytes TamperedIndex(Random& random, Bytes index, const Bytes& other);

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_TAMPER_H_
