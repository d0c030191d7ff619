// Closing the hole that a failed sync left in a log.
#ifndef GROUPCOMMIT_LOG_REPAIR_H_
#define GROUPCOMMIT_LOG_REPAIR_H_

#include <cstdint>

#include "sqlite.h"

namespace groupcommit {

inline constexpr uint32_t kAllFrames = 0xffffffff;

// After a failed sync the kernel may have marked pages clean that never reached the disk: a later
// sync succeeds and does not write them. Reads the log back from its header on, as far as its
// checksums are valid, which is what recovery would find, but no further than frame `most`; writes
// the same bytes again and syncs them.
//
// `log` is the base VFS's file. REQUIRES: nobody else writes to that part of the log meanwhile; the
// handle has been told of the failure, or the sync fails for it.
// Returns SQLITE_OK if all of it is durable now, and reaches to the frame `last_frame` at least;
// SQLITE_CORRUPT if it ends before that (and is durable); SQLITE_NOMEM; or the error of a read,
// write or sync.
int RewriteLog(sqlite3_file* log, uint32_t last_frame, uint32_t most = kAllFrames);

// Makes sure that recovery ends the log with frame `last_frame`, whatever is written behind it
// later: overwrites the frame headers that follow, as far as they are of the log's generation, with
// zeros. Otherwise a transaction that happens to write the same bytes again would make the old
// frames behind it valid. `next_generation` is that of the wal-index: if no frame is to stay, and
// the log has another, it is restarted next, and its header is overwritten instead. Not durable
// before the next sync. REQUIRES, returns: as RewriteLog().
int CutLog(sqlite3_file* log, uint32_t last_frame, uint64_t next_generation);

}  // namespace groupcommit

#endif  // GROUPCOMMIT_LOG_REPAIR_H_
