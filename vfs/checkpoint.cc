// Connection: making room for a checkpoint. Why: checkpoint_gate.h.
#include <atomic>
#include <thread>
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
  CheckpointGate& gate = database_->gate();
  const int others = gate.writers().load(std::memory_order_relaxed) - counts_.writers();
  const bool alone = others == 0 && database_->write_queue()->waiting() == 0;
  checkpoint_ =
      gate.OnBegin(header.last_frame(), header.generation(), automatic ? writer_ : 0, alone);
  // main.c: sqlite3WalDefaultHook() does not mind.
  return checkpoint_ == CheckpointGate::Advice::kSkip ? SQLITE_BUSY : SQLITE_OK;
}

// Of the header that a checkpoint goes by.
void Connection::NoteCheckpointedLog() {
  if (wal_index_ != nullptr) checkpointed_log_ = Header().generation();
}

// What earlier checkpoints have announced: ours announces something next, see ForgetAttempt().
void Connection::NoteAttempt() {
  if (wal_index_ != nullptr) attempted_before_ = CheckpointInfo::Load(wal_index_).attempted;
}

// A checkpoint is about to copy pages, for which it has just got WAL_READ_LOCK(0). Has a writer
// started the log over since it read the header? Before 3.51.3 SQLite does not look: it takes
// nBackfill, which is 0 by then, for a log of which nothing is in the database file, and marks as
// copied as many frames as the old one had. The frames of the new one that have a number up to that
// are never copied then, and no longer read (wal.c: walCheckpoint(), walTryBeginRead()). Nor can a
// writer start it over from here on, as it holds that lock itself (walRestartLog()). With
// SQLITE_BUSY the checkpoint ends as it does beside a reader, and there is nothing to do for it.
bool Connection::IsLogStartedOver(const LockRequest& request) const {
  const bool copies = request.exclusive() && request.locks() == 1u << kFirstReadLock &&
                      Holds(kCheckpointLock) && !Holds(kWriteLock) && wal_index_ != nullptr;
  return copies && checkpointed_log_ != Header().generation();
}

// Is it the request with which a writer starts the log over? (wal.c: walRestartLog())
bool Connection::StartsLogOver(const LockRequest& request) const {
  return request.exclusive() && request.locks() == kLogReadLocks && Holds(kWriteLock) &&
         !Holds(kCheckpointLock);
}

// A checkpoint of another process may not look either, and has the checkpoint lock from before it
// reads the header. So a writer has it, too, while it starts the log over. If it is not to be had
// the log goes on, as it does beside a reader. (The fence has none through this file: it takes none
// while SQLite has the write lock through it, and SQLite was refused that while the fence had one.)
int Connection::KeepCheckpointsOut() {
  database_->starts_over().fetch_add(1, std::memory_order_seq_cst);
  const int rc = AskBase({Fence::kCheckpointIndex, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE});
  keeps_checkpoints_out_ = rc == SQLITE_OK;
  if (rc != SQLITE_OK) database_->starts_over().fetch_add(1, std::memory_order_seq_cst);
  return rc;
}

// The request that they were kept out for has been refused, or its locks have been released.
void Connection::LetCheckpointsIn() {
  if (!std::exchange(keeps_checkpoints_out_, false)) return;
  (void)AskBase({Fence::kCheckpointIndex, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE});
  database_->starts_over().fetch_add(1, std::memory_order_seq_cst);
}

// To a checkpoint of this process that moment is no reason for SQLITE_BUSY. (But it must not wait
// for ever for a writer that it keeps from running, as a thread of a higher priority.)
int Connection::AskBaseForCheckpoint(const LockRequest& request) {
  constexpr int kMost = 10'000;
  for (int asked = 1;; asked++) {
    const uint64_t before = database_->starts_over().load(std::memory_order_seq_cst);
    const int rc = AskBase(request);
    const uint64_t after = database_->starts_over().load(std::memory_order_seq_cst);
    const bool was_free = before % 2 == 0 && before == after;
    if (rc != SQLITE_BUSY || was_free || asked == kMost) return rc;
    std::this_thread::yield();
  }
}

// It has the lock, and reads the header only after this (wal.c: sqlite3WalCheckpoint()).
void Connection::CloseGate() {
  if (checkpoint_ != CheckpointGate::Advice::kHoldWriters) return;
  WriteQueue& queue = *database_->write_queue();
  CheckpointGate& gate = database_->gate();
  Clock& clock = database_->clock();
  const int64_t deadline = clock.NowNanos() + CheckpointGate::kTurnNanos;
  const bool has_turn = queue.AwaitTurn(writer_, WriteQueue::kFirst, deadline, true);
  const int64_t sync_nanos = database_->coordinator().SyncNanos();
  const int64_t now = clock.NowNanos();
  closed_gate_ =
      has_turn && queue.ProlongTurn(writer_, now + CheckpointGate::ClosedNanos(sync_nanos));
  if (!closed_gate_) return gate.OnEnd(Header().last_frame(), false);
  const int64_t drained_by = now + CheckpointGate::DrainNanos(sync_nanos);
  if (!gate.Await(gate.writers(), counts_.writers(), drained_by)) return OpenGate();
  gate.Await(gate.leaving(), counts_.leaving(), clock.NowNanos() + CheckpointGate::kLeavingNanos);
}

void Connection::OpenGate() {
  if (!std::exchange(closed_gate_, false)) return;
  const uint32_t frames = Header().last_frame();
  const bool complete = CheckpointInfo::Load(wal_index_).copied == frames;
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
