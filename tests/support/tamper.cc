#include "support/tamper.h"

#include <algorithm>
#include <iterator>

#include "support/wal_image.h"

namespace groupcommit::testing {
namespace {

void Scribble(Random& random, Bytes* bytes, size_t begin, size_t end) {
  end = std::min(end, bytes->size());
  for (size_t i = begin; i < end; i++) (*bytes)[i] = static_cast<uint8_t>(random());
}

}  // namespace

Bytes TamperedLog(Random& random, Bytes log, const Bytes& other) {
  for (size_t changes = Below(random, 4); changes > 0; changes--) {
    const size_t frame = LogPageSize(log) == 0 || LogFrames(log) == 0
                             ? 0
                             : LogFrameAt(log, Below(random, LogFrames(log)));
    const size_t from = Below(random, log.size() + 1);
    switch (Below(random, 9)) {
      case 0:
        Scribble(random, &log, from, from + Below(random, 64));
        break;
      case 1:
        Scribble(random, &log, 0, log.size());
        break;
      case 2:
        log.resize(from);
        break;
      case 3:
        log.resize(log.size() + Below(random, 5000));
        Scribble(random, &log, log.size() - 100, log.size());
        break;
      case 4:  // a number in a header
        PutBig32(&log, frame + 4 * Below(random, 6),
                 kAbsurdNumbers[Below(random, std::size(kAbsurdNumbers))]);
        break;
      case 5:  // the same frames again
        log.insert(log.end(),
                   log.begin() + static_cast<std::ptrdiff_t>(std::min(frame, log.size())),
                   log.end());
        break;
      case 6:  // the start of another log
        std::copy_n(other.begin(), std::min({from, other.size(), log.size()}), log.begin());
        break;
      case 7:  // the other byte order
        if (log.size() > 3) log[3] ^= 1;
        break;
      case 8:  // a page
        Scribble(random, &log, frame + kFrameHeaderBytes, frame + kFrameHeaderBytes + 100);
        break;
    }
  }
  if (OneIn(random, 2)) RepairLog(&log, OneIn(random, 2));
  return log;
}

Bytes TamperedIndex(Random& random, Bytes index, const Bytes& other) {
  for (size_t changes = Below(random, 4); changes > 0; changes--) {
    const size_t from = Below(random, kIndexHeadBytes);
    switch (Below(random, 6)) {
      case 0:
        Scribble(random, &index, from, from + Below(random, 64));
        break;
      case 1:
        Scribble(random, &index, 0, index.size());
        break;
      case 2:
        index.resize(Below(random, index.size() + 1));
        break;
      case 3:
        PutNative32(&index, from / 4 * 4, static_cast<uint32_t>(Below(random, 100)));
        break;
      case 4:  // the hash table
        Scribble(random, &index, kIndexHeadBytes, index.size());
        break;
      case 5:
        std::copy_n(other.begin(), std::min({from, other.size(), index.size()}), index.begin());
        break;
    }
  }
  if (OneIn(random, 2)) {
    PutNative16(&index, kIndexPageSizeAt,
                kIndexPageSizes[Below(random, std::size(kIndexPageSizes))]);
    PutNative32(&index, kIndexLastFrameAt, static_cast<uint32_t>(Below(random, kMaxIndexFrames)));
    RepairIndex(&index);
  }
  return index;
}

}  // namespace groupcommit::testing
