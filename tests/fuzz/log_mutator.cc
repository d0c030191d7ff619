#include "log_mutator.h"

#include <algorithm>
#include <iterator>
#include <random>

#include "fuzz.h"

namespace groupcommit::testing {

Bytes LogOf(const uint8_t* data, size_t size) {
  Bytes log(data + 1, data + size);
  if ((data[0] & kRepair) != 0) RepairLog(&log, (data[0] & kSalts) != 0);
  return log;
}

size_t MutateLog(const Bytes& first, uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  constexpr uint32_t kNumbers[] = {0, 1, 2, 3, 5, 512, 1024, 65536, 0x7fffffff, 0xffffffff};
  std::minstd_rand random(seed);
  if (size < kLogHeaderBytes) {
    size = 1 + std::min(max_size - 1, first.size());
    data[0] = static_cast<uint8_t>(random());
    std::copy_n(first.begin(), size - 1, data + 1);
  }
  if (random() % 2 == 0) return LLVMFuzzerMutate(data, size, max_size);
  Bytes log(data + 1, data + size);
  const size_t frames = LogPageSize(log) == 0 ? 0 : LogFrames(log);
  const size_t header = random() % 2 == 0 || frames == 0 ? 0 : LogFrameAt(log, random() % frames);
  PutBig32(&log, header + random() % 8 * 4, kNumbers[random() % std::size(kNumbers)]);
  std::copy(log.begin(), log.end(), data + 1);
  return size;
}

}  // namespace groupcommit::testing
