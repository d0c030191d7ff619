// Whether a checkpoint has closed its gate.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_LONG_TURN_H_
#define GROUPCOMMIT_TESTS_SUPPORT_LONG_TURN_H_

#include "write_queue.h"

namespace groupcommit::testing {

// Is the lock kept for somebody who may come for it much later than usual?
inline bool IsInLongTurn(WriteQueue& queue) {
  const bool kept = queue.IsKept();
  return kept && queue.kept_until() - queue.clock().NowNanos() > WriteQueue::kTurnNanos;
}

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_LONG_TURN_H_
