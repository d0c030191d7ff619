// The flags of xSync as bits of which the union is the strongest; see LogCommit::strength.
#ifndef GROUPCOMMIT_SYNC_STRENGTH_H_
#define GROUPCOMMIT_SYNC_STRENGTH_H_

#include "sqlite.h"

namespace groupcommit {

inline constexpr int kSyncFull = 1;      // SQLITE_SYNC_FULL rather than NORMAL
inline constexpr int kSyncMetadata = 2;  // not SQLITE_SYNC_DATAONLY

inline int StrengthOf(int flags) {
  return ((flags & 0x0f) == SQLITE_SYNC_FULL ? kSyncFull : 0) |
         ((flags & SQLITE_SYNC_DATAONLY) != 0 ? 0 : kSyncMetadata);
}

inline int FlagsOf(int strength) {
  return ((strength & kSyncFull) != 0 ? SQLITE_SYNC_FULL : SQLITE_SYNC_NORMAL) |
         ((strength & kSyncMetadata) != 0 ? 0 : SQLITE_SYNC_DATAONLY);
}

}  // namespace groupcommit

#endif  // GROUPCOMMIT_SYNC_STRENGTH_H_
