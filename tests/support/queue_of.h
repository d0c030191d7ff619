// The queue and the gate that connections through the shim share, for tests that have to know who
// waits.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_QUEUE_OF_H_
#define GROUPCOMMIT_TESTS_SUPPORT_QUEUE_OF_H_

#include "checkpoint_gate.h"
#include "support/sqlite_helpers.h"
#include "write_queue.h"

namespace groupcommit::testing {

// REQUIRES: `db` is open through the shim, which is the topmost VFS, and no statement of it runs.
WriteQueue& QueueOf(const Db& db);
CheckpointGate& GateOf(const Db& db);

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_QUEUE_OF_H_
