// Inputs that are logs: for the targets that read one.
#ifndef GROUPCOMMIT_TESTS_FUZZ_LOG_MUTATOR_H_
#define GROUPCOMMIT_TESTS_FUZZ_LOG_MUTATOR_H_

#include <cstddef>
#include <cstdint>

#include "support/wal_image.h"

namespace groupcommit::testing {

// The first byte of such an input says what is done to the rest, which is a log.
enum LogFlag : unsigned {
  kRepair = 1,      // with the right checksums
  kSalts = 2,       // and the same salts in all frames
  kWrite = 4,       // the connection writes, too
  kExclusive = 8,   // PRAGMA locking_mode=EXCLUSIVE
  kFrameShift = 4,  // the upper half of the byte is the number of a frame
};

// The log of an input that is not empty.
Bytes LogOf(const uint8_t* data, size_t size);

// As LLVMFuzzerCustomMutator(). Changes numbers in headers, which chance alone would seldom hit,
// and does all that libFuzzer does. What is too short for a log becomes `first`.
size_t MutateLog(const Bytes& first, uint8_t* data, size_t size, size_t max_size, unsigned seed);

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_FUZZ_LOG_MUTATOR_H_
