// Connection, after a sync of the log has failed.
//
// Stock SQLite syncs before it makes a commit visible, so that a commit whose sync failed was never
// there: the next writer overwrites its frames. We come to the same end by taking the failed
// commits back. Under the write lock, the wal-index header is put back to what it was before the
// oldest of them. To SQLite that looks like writers that died before they published anything, which
// it is made for: a smaller mxFrame is legal for wal.c's walIndexAppend(), walCleanupHash() and
// read marks.
//
// The order matters. No failed commit returns, and no snapshot of one is released, before the
// header is back or the fence is up: a checkpoint could copy its frames into the database file
// meanwhile. And nobody writes again before the hole is closed.
#include <algorithm>
#include <chrono>
#include <thread>

#include "connection.h"

namespace groupcommit {

// A commit of ours, or the sync of one, has failed. Returns when it is out of sight, or cannot be
// soon.
int Connection::Fail(int error, std::chrono::milliseconds patience) {
  // A writer takes back what failed when SQLite makes it release the write lock, a checkpoint when
  // it ends.
  if (Holds(kWriteLock | kCheckpointLock)) return error;
  counts_.EndWrite();  // a checkpoint that waits for us has a lock that is needed here
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (TryRollBack() == RollBack::kNotYet) {
    CloseHoleBeneathStranger();
    if (std::chrono::steady_clock::now() >= deadline) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  SayWhyNotYet();
  return error;
}

void Connection::SayWhyNotYet() {
  MutexLock lock(database_->fence().mutex());
  if (database_->coordinator().failure() == 0 || !database_->fence().TellOnce()) return;
  sqlite3_log(
      SQLITE_IOERR_FSYNC,
      "groupcommit: after a failed sync nobody may write until a transaction has ended that is "
      "open, of this process or another one: %s",
      database_->path().c_str());
}

// The path comes last, as sqlite3_log() cuts a message off after some 200 bytes.
void Connection::SayWhyNever(const char* reason) {
  if (!database_->fence().TellOnce()) return;
  sqlite3_log(SQLITE_IOERR_FSYNC,
              "groupcommit: after a failed sync nobody may write until this process has closed the "
              "database, as %s: %s",
              reason, database_->path().c_str());
}

bool Connection::TakeFence() { return database_->fence().Take(main_, database_->writing()); }

// The write lock goes from SQLite to the fence, instead of being released. False if it may be
// released.
bool Connection::KeepWriteLock() {
  MutexLock lock(database_->fence().mutex());
  if (database_->coordinator().failure() == 0) return false;
  database_->fence().TakeOver(main_);
  RollBackUnderFence();
  return true;
}

// The same for the read lock of a snapshot beneath the failed commits, while a checkpoint of
// another process keeps the checkpoint lock from the fence.
bool Connection::KeepReadLock(unsigned lock) {
  const Coordinator& coordinator = database_->coordinator();
  if (coordinator.failure() == 0 || snapshot_ == 0 || !coordinator.HasFailed(snapshot_))
    return false;
  int index = kFirstReadLock;
  while ((lock >> index & 1) == 0) index++;
  MutexLock guard(database_->fence().mutex());
  if (coordinator.failure() == 0 || wal_index_ == nullptr) return false;
  // The first one is of a log that is in the database file as a whole: nothing is copied meanwhile.
  const int mark = index - kFirstReadLock;
  const uint32_t frame = mark == 0 ? 0 : CheckpointInfo::Load(wal_index_).read_marks[mark];
  return database_->fence().KeepReadLock(main_, index, frame);
}

Connection::RollBack Connection::TryRollBack() {
  MutexLock lock(database_->fence().mutex());
  return RollBackUnderFence();
}

Connection::RollBack Connection::RollBackUnderFence() {
  Coordinator& coordinator = database_->coordinator();
  if (coordinator.failure() == 0) return RollBack::kDone;
  if (log_ == nullptr) return RollBack::kNotSafe;
  // Exclusive locking mode from the start: nobody else sees the log, and nothing was deferred.
  if (!shm_is_open_) {
    return sole_user_ ? RewriteWholeLog(0) : RollBack::kNotSafe;
  }
  if (Holds(kCheckpointLock)) return RollBack::kNotYet;  // it is SQLite's; the fence needs its own
  if (!TakeFence()) {
    if (wal_index_ == nullptr) return RollBack::kNotYet;
    // A checkpoint of another process may go on, but not copy half of what is lost.
    const bool is_checkpoint = IsStrangersCheckpoint();
    Lsn last_to_stay;
    const bool can_undo = OldestToUndo(&last_to_stay).can_undo && !database_->IsReopened();
    if (is_checkpoint && !can_undo) return CloseHoleForGood();
    if (is_checkpoint || !database_->IsOurs(last_to_stay, Header())) CloseHoleOfFence();
    return RollBack::kNotYet;
  }
  // From here on no checkpoint and no writer can do harm, and our snapshot protects nothing any
  // more.
  if (snapshot_ != 0 && coordinator.HasFailed(snapshot_)) DropSnapshotUnderFence();

  // A failure from before the database was last closed: there is nothing of ours to take back.
  // (They may have been by then, and another process goes on by the header.)
  if (wal_index_ == nullptr) {
    return HasNoWalIndex() ? RewriteWholeLog(0) : RollBack::kNotSafe;
  }
  const bool may_be_in_sight = !database_->IsReopened() && !database_->fence().put_back();
  if (may_be_in_sight && Header().IsWhole() && !PutBackHeader()) {
    // Once others were not kept out any more, they may have copied what failed, or half of it.
    if (database_->fence().was_let_go()) return RewriteWholeLog(Header().last_frame());
    CloseHoleOfFence();
    return RollBack::kNotSafe;
  }
  return CloseHoleForGood();
}

// Has nobody made one, so that the next one recovers the log? (SQLite asks for the write lock then
// before it makes it, wal.c: walIndexReadHdr().)
bool Connection::HasNoWalIndex() {
  constexpr int kRegionSize = 32 * 1024;  // wal.c: WALINDEX_PGSZ
  volatile void* region = nullptr;
  const int rc = main_->pMethods->xShmMap(main_, 0, kRegionSize, 0, &region);
  return rc == SQLITE_OK && region == nullptr;
}

// Frames that were found in the log when it was opened are nobody's failed commit.
LogCommit Connection::OldestToUndo(Lsn* beneath) {
  const Coordinator& coordinator = database_->coordinator();
  LogCommit oldest;
  Lsn lsn = coordinator.durable();
  while (lsn < coordinator.appended() && !oldest.can_undo) oldest = database_->commits().Get(++lsn);
  if (beneath != nullptr) *beneath = oldest.can_undo ? lsn - 1 : lsn;
  return oldest;
}

// Takes the failed commits out of sight. False where that could hurt somebody else.
bool Connection::PutBackHeader() {
  Coordinator& coordinator = database_->coordinator();
  const Lsn tail = coordinator.durable();
  const WalIndexHeader now = Header();
  Lsn last_to_stay;
  const LogCommit oldest = OldestToUndo(&last_to_stay);
  // A sync has succeeded for all beneath: of our commits, and of those of other processes, as one
  // of ours that is durable lies on top of them.
  const Lsn beneath = oldest.can_undo ? oldest.written_before : database_->newest_commit();
  const bool beneath_is_durable =
      coordinator.synced() >= beneath && database_->IsOnTop(tail) && database_->IsOurs(tail, now);
  // The fence may have been let go of since: ReleaseThrough(). Then another process may have
  // committed, too, but on top of the header that was put back.
  const WalIndexHeader published = database_->published();
  const bool is_back = published == WalIndexHeader(oldest.before).WithChange(published.change());
  if (oldest.can_undo && !is_back) {
    if (const char* reason = WhyNotPutBack(oldest, last_to_stay, now)) {
      if (!database_->fence().was_let_go()) SayWhyNever(reason);
      return false;
    }
    // With a new change counter. A reader that read this header when it was there first, and then
    // how far a checkpoint has come, must not find it unchanged (wal.c: walTryBeginRead()).
    const uint32_t change = std::max(now.change(), published.change()) + 1;
    const WalIndexHeader before = WalIndexHeader(oldest.before).WithChange(change);
    StoreHeader(before);
    database_->OnWriteUnlocking(before, true);
    database_->OnPutBack(last_to_stay, before.change());
    database_->OnCommitted(beneath);
    database_->frames().Forget();
  }
  database_->fence().SetPutBack(beneath_is_durable);
  return true;
}

// Could it hurt somebody if `now` went back to what was there before `oldest`, on top of
// `last_to_stay`? Null: no.
const char* Connection::WhyNotPutBack(const LogCommit& oldest, Lsn last_to_stay,
                                      const WalIndexHeader& now) {
  if (!database_->IsOurs(last_to_stay, now)) return "another process has committed on top";
  // The salts of the commit itself: the header before the first commit of a log may have others
  // (wal.c: sqlite3WalFrames() draws new ones if Wal.nCkpt is 0).
  if (oldest.generation != now.generation()) return "the log was restarted";
  // What was only announced has come no further than the snapshots of the failed commits, and then
  // the fence, let it; or it was a recovery (wal.c: walIndexRecover()), or another process that has
  // taken back its own, and nobody has copied anything.
  const CheckpointInfo info = CheckpointInfo::Load(wal_index_);
  const uint32_t copied = database_->fence().was_let_go() ? info.attempted : info.copied;
  const uint32_t last_frame = WalIndexHeader(oldest.before).last_frame();
  if (last_frame > now.last_frame() || last_frame < copied) {
    return "a checkpoint has copied failed commits";
  }
  return nullptr;
}

void Connection::StoreHeader(const WalIndexHeader& header) {
  // A checkpoint copies a page only if its newest frame is among those that it copies, and syncs
  // the database file only if it reaches the end of the log (wal.c: walIteratorInit(),
  // walCheckpoint()). Where it stopped may be the end from now on: what it has copied would be
  // taken for all that there is.
  CheckpointInfo::ForgetBackfill(wal_index_, header.last_frame());
  main_->pMethods->xShmBarrier(main_);
  // In the order of wal.c: walIndexWriteHdr(), so that nobody takes a mixture for a header.
  header.Store(wal_index_, 1);
  main_->pMethods->xShmBarrier(main_);
  header.Store(wal_index_, 0);
}

bool Connection::FailedIsInSight() const {
  const Lsn appended = database_->coordinator().appended();
  return database_->LastInSight(appended, Header()) == appended;
}

// Gives up the read locks of a snapshot that has failed, before SQLite does. All its reads are
// refused.
void Connection::DropSnapshot() {
  MutexLock lock(database_->fence().mutex());
  // Until then it may be what keeps the failed commits out of the database file.
  if (database_->fence().HasCheckpointLock()) DropSnapshotUnderFence();
}

void Connection::DropSnapshotUnderFence() {
  const unsigned held = shared_ & ~dropped_ & kReadLocks;
  ReleaseReadLocks(held);
  dropped_ |= held;
}

// Who comes upon a failure takes back what failed, or keeps another process from building on the
// hole. Not under the write lock, at the end of which it is done.
void Connection::RollBackOrCloseHole() {
  if (database_->coordinator().failure() == 0 || Holds(kWriteLock)) return;
  if (TryRollBack() == RollBack::kNotYet && !Holds(kCheckpointLock)) CloseHoleBeneathStranger();
}

// SQLite has got the file lock SQLITE_LOCK_EXCLUSIVE. From here on it asks for none of the locks at
// which others repair the log, nor, with synchronous=OFF, for a sync: it copies all of the log and
// deletes it (wal.c: sqlite3WalClose()), or writes in exclusive locking mode, perhaps upon a
// snapshot from before (pager.c: sqlite3PagerBegin()).
int Connection::RepairForSoleUser() {
  if (log_ == nullptr) return SQLITE_OK;
  if (database_->coordinator().failure() != 0) (void)RepairAtClose();
  return database_->coordinator().failure() != 0 ? kCommitFailed : BeforeRead();
}

// A checkpoint of ours has copied nothing.
void Connection::ForgetAttempt() {
  if (wal_index_ != nullptr) CheckpointInfo::ForgetAttempt(wal_index_, attempted_before_);
}

// A connection closes. If the failed commits could not be taken back, they are made durable:
// whoever writes next would find them in the log, and build on the hole. True if the log is whole,
// and a checkpoint that has begun may go on.
bool Connection::RepairAtClose() {
  // The checkpoint of the last connection has announced what it would copy, and the sync before
  // that fails (wal.c: sqlite3WalClose(), walCheckpoint()).
  if (sole_user_) ForgetAttempt();
  // It must not if it has read the header from before a roll-back. (Without the shared memory there
  // was nothing to take back.)
  if (TryRollBack() == RollBack::kDone) return !shm_is_open_;
  MutexLock lock(database_->fence().mutex());
  if (database_->coordinator().failure() == 0) return !shm_is_open_;  // somebody else has done it
  // What is out of sight must not come back. The next one to open the log cuts it off.
  if (database_->fence().put_back() && !database_->fence().log_is_whole()) return false;
  // Without the shared memory SQLite is in exclusive locking mode, and we are called under the file
  // lock. A checkpoint of another process may go on: it reads what is written again as it was.
  if (!sole_user_) {
    (void)TakeFence();
    if (!database_->fence().HasWriteLock()) return false;
  }
  return RewriteWholeLog(Header().last_frame()) == RollBack::kDone;
}

// Is it the checkpoint of another process that the fence waits for?
bool Connection::IsStrangersCheckpoint() {
  return database_->fence().HasWriteLock() && !database_->fence().HasCheckpointLock() &&
         database_->checkpoint_holders().load(std::memory_order_acquire) == 0;
}

// While another process has one of the locks nothing can be taken back, and who closes would leave
// in sight what failed, or let go of the read lock that keeps that out of the database file. Most
// checkpoints and transactions are over soon. False if this one was not, or it has committed on
// top.
bool Connection::AwaitStrangers() {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (true) {
    const RollBack outcome = TryRollBack();
    if (outcome == RollBack::kDone || !IsFenceForStrangers()) return true;
    if (outcome == RollBack::kNotSafe || std::chrono::steady_clock::now() >= deadline) return false;
    CloseHoleBeneathStranger();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// The connection is about to close its log: the locks of the fence have to be let go that are held
// through its file. What failed is left to the others of ours, if there are any.
void Connection::LeaveFence() {
  const bool is_last = log_ != nullptr && database_->LeaveLog(log_);
  const bool has_failed = database_->coordinator().failure() != 0;
  if (!database_->fence().IsHeldThrough(main_) && !(is_last && has_failed)) return;
  const bool is_in_vain = !AwaitStrangers();
  if (log_ != nullptr && (is_last || is_in_vain)) RepairAtClose();
  MutexLock lock(database_->fence().mutex());
  const uint64_t failures = database_->coordinator().failures();
  if (LeavesHole() && CloseHole(database_->published().last_frame())) {
    database_->fence().SetClosedBeneath(failures);
  }
  database_->fence().ReleaseThrough(main_);
}

// Will the hole still be there, for another process to build on? So it is where the failed commits
// are taken back later, as one of ours is in a transaction or a checkpoint; and where they are out
// of sight, but somebody reads them, and what lies beneath them was not synced either. False if it
// is not ours to close: the log is another one by now, or the other process writes to it.
bool Connection::LeavesHole() {
  if (database_->coordinator().failure() == 0 || log_ == nullptr || database_->IsReopened()) {
    return false;
  }
  const LogCommit oldest = OldestToUndo();
  const uint64_t generation =
      oldest.can_undo ? oldest.generation : database_->committed().generation();
  const bool is_kept_out = database_->fence().HasWriteLock() ||
                           database_->writing().load(std::memory_order_acquire) != 0;
  return is_kept_out && generation == Header().generation();
}

// Are the failed commits still in sight because of another process? It would build on them before
// another connection of ours has come by to take the fence again.
bool Connection::IsFenceForStrangers() {
  MutexLock lock(database_->fence().mutex());
  return !database_->fence().put_back() &&
         database_->write_holders().load(std::memory_order_acquire) == 0 &&
         database_->checkpoint_holders().load(std::memory_order_acquire) == 0;
}

}  // namespace groupcommit
