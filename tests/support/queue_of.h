// The queue and the gate that connections through the shim share, for tests that have to know who
// waits.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_QUEUE_OF_H_
#define GROUPCOMMIT_TESTS_SUPPORT_QUEUE_OF_H_

#include <cstdint>

#include "checkpoint_gate.h"
#include "support/sqlite_helpers.h"
#include "write_queue.h"

namespace groupcommit::testing {

// REQUIRES: `db` is open through the shim, which is the topmost VFS, and no statement of it runs.
WriteQueue& QueueOf(const Db& db);
CheckpointGate& GateOf(const Db& db);

// A writer that is no connection, and keeps the lock for a minute without coming for it, as a
// checkpoint that has closed its gate. False if it is not to be had.
inline constexpr WriteQueue::Writer kSomebody = 1'000'000;
inline bool KeepForSomebody(WriteQueue* queue) {
  constexpr int64_t kLongNanos = 60'000'000'000;
  const int64_t now = queue->clock().NowNanos();
  return queue->AwaitTurn(kSomebody, WriteQueue::kFirst, now, true) &&
         queue->ProlongTurn(kSomebody, now + kLongNanos);
}

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_QUEUE_OF_H_
