// Closing the hole that a failed sync left in a log.
#ifndef GROUPCOMMIT_LOG_REPAIR_H_
#define GROUPCOMMIT_LOG_REPAIR_H_

#include <cstdint>

#include "sqlite.h"

namespace groupcommit {

// After a failed sync the kernel may have marked pages clean that never reached the disk: a later
// sync succeeds and does not write them. Reads the log back, from its header to the end of frame
// `last_frame`, checks its checksums, writes the same bytes again and syncs them.
//
// `log` is the base VFS's file. REQUIRES: nobody else writes to the log meanwhile.
// Returns SQLITE_OK if all of it is durable now; SQLITE_CORRUPT if the bytes read back are not what
// was written (all before them is durable again); SQLITE_NOMEM; or the error of a read, write or
// sync.
int RewriteLog(sqlite3_file* log, uint32_t last_frame);

}  // namespace groupcommit

#endif  // GROUPCOMMIT_LOG_REPAIR_H_
