// Connection: taking turns at the write lock.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>
#include <utility>

#include "connection.h"
#include "lost_race.h"

namespace groupcommit {

// SQLite asks for the write lock. Refused here, it drops its snapshot and calls the busy handler,
// which sleeps in line (xSleep).
int Connection::TakeTurn() {
  WriteQueue& queue = *database_->write_queue();
  bool is_kept = false;  // as it was refused: it may be nobody's any more
  has_turn_ = queue.TryAcquire(writer_, &is_kept);
  waited_inside_ = lock_timeout_ms_ != 0;
  if (has_turn_) return SQLITE_OK;
  if (lock_timeout_ms_ != 0) return AwaitTurn();
  const bool has_slept = LostRace::SleepsUntil(writer_) != 0;
  if (is_kept && (std::exchange(let_through_, false) || !WaitsInLine())) return SQLITE_OK;
  if (has_slept) SleepOut();
  LoseRace(false);
  return SQLITE_BUSY;
}

// SQLite wants to wait in here: it has no snapshot yet, or runs a checkpoint, and does not call the
// busy handler (btree.c: sqlite3BtreeBeginTrans(), SQLITE_ENABLE_SETLK_TIMEOUT).
int Connection::AwaitTurn() {
  WriteQueue& queue = *database_->write_queue();
  if (refused_since_ == 0) refused_since_ = database_->clock().NowNanos();
  const uint64_t ticket = queue.NewTicket();
  while (!has_turn_ && queue.AwaitTurn(writer_, ticket, lock_deadline_, true)) {
    has_turn_ = queue.TryAcquire(writer_);
  }
  let_through_ = !has_turn_ && queue.IsKept();  // it may come back, see ReturnTurn()
  return has_turn_ || let_through_ ? SQLITE_OK : SQLITE_BUSY_TIMEOUT;
}

// `elsewhere`: to another process, or to a connection that does not queue up.
void Connection::LoseRace(bool elsewhere) {
  constexpr int64_t kGivenUpNanos = 250'000'000;
  constexpr int64_t kTooLongNanos = 50'000'000;
  const bool in_line = LostRace::SleepsUntil(writer_) != 0;
  LostRace::Note(database_->write_queue(), writer_, elsewhere);
  const int64_t now = database_->clock().NowNanos();
  const int64_t since_last = now - std::exchange(last_refused_, now);
  if (refused_since_ == 0 || since_last > kGivenUpNanos) refused_since_ = now;
  // Its busy handler sleeps by itself, and the lock never happens to be free when it asks. (If it
  // sleeps for longer than a turn, the lock would be kept in vain.)
  const bool waits_for_long = now - refused_since_ > kTooLongNanos;
  if (!in_line && waits_for_long && since_last <= WriteQueue::kTurnNanos) {
    database_->write_queue()->Favor(writer_);
  }
}

void Connection::ReturnTurn() {
  // An SQLite that waits inside takes the lock before its snapshot. It then gives up the lock along
  // with its old snapshot (wal.c: sqlite3WalEndReadTransaction()), and asks again at once, without
  // waiting.
  const bool comes_back = waited_inside_ && !HoldsReadLock() && !Holds(kCheckpointLock);
  // So does a statement whose turn finds the schema changed: it is prepared anew. Behind others
  // that change it, each of its turns would, until SQLite gives up (SQLITE_SCHEMA).
  const bool starts_again = writes_.is_empty() && page1_.schema_is_new();
  if (has_turn_ && (comes_back || starts_again)) database_->write_queue()->Favor(writer_);
  let_through_ = let_through_ && comes_back;
  if (has_turn_) database_->write_queue()->Release(writer_);
  has_turn_ = false;
  LostRace::OnReleased(writer_);
  // Perhaps SQLite has found that its snapshot is old, and calls the busy handler for a new one.
  // (wal.c: sqlite3WalBeginWriteTransaction(), BUSY_SNAPSHOT)
  // If it has slept for this before, somebody commits who does not queue up: then it is not let
  // through early again. (A checkpoint takes the lock without any snapshot.)
  const bool had_old_snapshot =
      writes_.is_empty() && header_at_lock_.change() != change_at_snapshot_;
  if (!had_old_snapshot || !HoldsReadLock()) return;
  const bool has_slept = LostRace::SleepsUntil(writer_) != 0;
  SleepOut();
  LostRace::Note(database_->write_queue(), writer_, has_slept);
}

// A sleep was cut short for a turn that came to nothing: the thread got no processor in time.
// SQLite is about to call the busy handler again. If that gave up now, the timeout would end early.
// So it is called here first, for a sleep that is put off. If it gives up, or this was the last
// sleep before it does, the rest of the sleeps is slept here: nobody else would do so.
void Connection::SleepOut() {
  Clock& clock = database_->clock();
  const int64_t until = LostRace::SleepsUntil(writer_);
  if (until <= clock.NowNanos() || busy_handler_ == nullptr || IsUpgrade()) return;
  if (CallBusyHandler().waits && !LostRace::IsFinalSleep()) return;
  const int64_t rest = std::max(until, LostRace::SleepsUntil(writer_)) - clock.NowNanos();
  std::this_thread::sleep_for(std::chrono::nanoseconds(rest));
}

// SQLite has slept for the write lock, and is about to ask for it again: a checkpoint at once, a
// writer for its snapshot first. If the lock is kept for somebody else, it sleeps on here, as its
// busy handler says. Otherwise that would be called twice for one refusal: before it, by
// WaitsInLine(), and after it, by SQLite. If it gave up the second time, that would be SQLITE_BUSY
// for a lock that nobody has. True if it has slept.
bool Connection::SleepOn() {
  const WriteQueue& queue = *database_->write_queue();
  // An SQLite that waits inside may have the lock before its snapshot. And one that has just been
  // told to look again does not have to do so for ever (wal.c: WAL_RETRY_PROTOCOL_LIMIT).
  if (Holds(kWriteLock) || std::exchange(looks_again_, false)) return false;
  bool slept = false;
  while (LostRace::SleepsUntil(writer_) != 0 && queue.IsKeptFrom(writer_)) {
    if (busy_handler_ == nullptr || database_->coordinator().failure() != 0) break;
    const Answer answer = AskForSleeps();
    if (answer == Answer::kAnotherStatement) return false;
    LostRace::MakeUpForSleep();
    if (answer == Answer::kGivesUp) return false;
    slept = true;
  }
  return slept;
}

// Asks the busy handler for one sleep after the other, until they last as long as the lock is kept:
// so the thread wakes up once, not for each. If the handler begins anew with a first sleep, this is
// another statement: the one that slept has given up, or it was the application that slept. The new
// one may only want to read, and waits for nobody.
Connection::Answer Connection::AskForSleeps() {
  constexpr int kMost = 8;
  const WriteQueue& queue = *database_->write_queue();
  for (int asked = 0; asked < kMost && queue.IsKeptFrom(writer_); asked++) {
    if (asked > 0 && LostRace::SleepsUntil(writer_) >= queue.kept_until()) break;
    const Called called = CallBusyHandler();
    if (asked == 0 && called.sleeps && LostRace::IsFirstSleep()) return Answer::kAnotherStatement;
    if (!called.waits || !called.sleeps) return Answer::kGivesUp;
  }
  return Answer::kSleeps;
}

// The lock is kept for somebody who has not come for it yet: another writer, or a checkpoint. Stock
// SQLite would grant it. So it is refused only to those who then sleep in line for it. Who has no
// busy handler does not; nor does a read transaction that becomes a write transaction, for which it
// is not called (btree.c: sqlite3BtreeBeginTrans()). A handler may also sleep by itself, and
// whether it does is only seen by calling it.
bool Connection::WaitsInLine() {
  if (busy_handler_ == nullptr || IsUpgrade()) return false;
  // Who has slept and asks all the same has just found the lock held, or free; see SleepOn(). If
  // several want it, one may have to give up; but a checkpoint is no reason for that.
  if (LostRace::SleepsUntil(writer_) != 0) return !database_->write_queue()->IsKeptForLong();
  const Called called = CallBusyHandler();
  return called.sleeps && called.waits;
}

// Asks the busy handler for its next sleep, before SQLite does. That is put off, as we may hold a
// snapshot here, which is in the way of a checkpoint.
Connection::Called Connection::CallBusyHandler() {
  LoseRace(false);
  LostRace::PutOffSleep();
  const bool waits = busy_handler_(busy_argument_) != 0;
  return {waits, LostRace::HasPutOffSleep()};
}

bool Connection::IsUpgrade() const {
  sqlite3* const db = Db();
  if (db == nullptr) return true;
  for (int i = 0; const char* schema = sqlite3_db_name(db, i); i++) {
    if (sqlite3_db_filename(db, schema) == name_) {
      return sqlite3_txn_state(db, schema) != SQLITE_TXN_NONE;
    }
  }
  return true;
}

}  // namespace groupcommit
