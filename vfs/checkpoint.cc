// Connection: making room for a checkpoint. Why: checkpoint_gate.h.
#include <cstring>
#include <utility>

#include "connection.h"

namespace groupcommit {

// SQLite asks for the checkpoint lock.
int Connection::BeginCheckpoint() {
  // An automatic one follows upon the commit: on that of an attached database, too, of which
  // nothing else tells that a PRAGMA asks for it. (vdbeapi.c: doWalCallbacks())
  constexpr int64_t kAtOnceNanos = 1'000'000;
  checkpoint_ = CheckpointGate::Advice::kAsStock;
  const bool automatic = std::exchange(just_committed_, false) &&
                         database_->clock().NowNanos() - committed_at_ < kAtOnceNanos;
  if (Holds(kWriteLock) || sole_user_ || wal_index_ == nullptr) return SQLITE_OK;
  const WalIndexHeader header = Header();
  uint64_t generation;
  std::memcpy(&generation, header.salts(), sizeof(generation));
  CheckpointGate& gate = database_->gate();
  const int others = gate.writers().load(std::memory_order_relaxed) - counts_.writers();
  const bool alone = others == 0 && database_->write_queue()->waiting() == 0;
  checkpoint_ = gate.OnBegin(header.last_frame(), generation, automatic ? writer_ : 0, alone);
  // main.c: sqlite3WalDefaultHook() does not mind.
  return checkpoint_ == CheckpointGate::Advice::kSkip ? SQLITE_BUSY : SQLITE_OK;
}

// It has the lock, and reads the header only after this (wal.c: sqlite3WalCheckpoint()).
void Connection::CloseGate() {
  if (checkpoint_ != CheckpointGate::Advice::kHoldWriters) return;
  WriteQueue& queue = *database_->write_queue();
  CheckpointGate& gate = database_->gate();
  Clock& clock = database_->clock();
  const int64_t deadline = clock.NowNanos() + CheckpointGate::kTurnNanos;
  if (queue.AwaitTurn(writer_, WriteQueue::kFirst, deadline, true)) {
    const int64_t now = clock.NowNanos();
    closed_gate_ = queue.ProlongTurn(writer_, now + CheckpointGate::kClosedNanos);
    if (!closed_gate_) return gate.OnEnd(Header().last_frame(), false);
    if (!gate.Await(gate.writers(), counts_.writers(), now + CheckpointGate::kDrainNanos)) {
      return OpenGate();
    }
    gate.Await(gate.leaving(), counts_.leaving(), clock.NowNanos() + CheckpointGate::kLeavingNanos);
  } else {
    gate.OnEnd(Header().last_frame(), false);
  }
}

void Connection::OpenGate() {
  if (!std::exchange(closed_gate_, false)) return;
  const uint32_t frames = Header().last_frame();
  const bool complete = CheckpointInfo::Load(wal_index_).backfilled == frames;
  CheckpointGate& gate = database_->gate();
  // The next writer starts the log over if nobody reads from it (wal.c: walRestartLog()).
  if (complete) {
    const int64_t deadline = database_->clock().NowNanos() + CheckpointGate::kReadersNanos;
    gate.Await(gate.log_readers(), counts_.log_readers(), deadline);
  }
  gate.OnEnd(frames, complete);
  database_->write_queue()->EndTurn(writer_);
}

}  // namespace groupcommit
