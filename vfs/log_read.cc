// Connection: what its reads may see, and where from.
#include <algorithm>
#include <cstring>

#include "connection.h"

namespace groupcommit {

// Which pending commits does the snapshot include that SQLite has just taken? It has read the
// header before it asked for the lock, and compares it next: if it is another one by now, SQLite
// drops the snapshot (wal.c: walTryBeginRead()). So the header that we see is that of the snapshot.
void Connection::NoteSnapshot() {
  Coordinator& coordinator = database_->coordinator();
  snapshot_ = 0;
  chain_ = 0;
  in_sight_ = kAllInSight;
  page1_.OnSnapshot();
  if (wal_index_ == nullptr) return;
  const Lsn durable = coordinator.durable();
  const Lsn appended = coordinator.appended();
  const WalIndexHeader header = Header();
  change_at_snapshot_ = header.change();
  NoteFrames(header);
  if (durable >= appended) return;
  const Lsn last = database_->LastInSight(appended, header);
  if (last != appended) in_sight_ = last;
  snapshot_ = database_->commits().OwnerOf(header.last_frame(), durable, last).lsn;
}

// A snapshot that includes failed commits shows what never was; nor does the log keep it as it is.
// (Who has none reads for a checkpoint, for recovery, or to close.)
int Connection::BeforeRead() {
  if (snapshot_ == 0 || !HoldsReadLock()) return SQLITE_OK;
  if (!database_->coordinator().HasFailed(snapshot_)) return SQLITE_OK;
  if (!Holds(kWriteLock)) DropSnapshot();
  return kCommitFailed;
}

int Connection::BeforeLogRead(int size, int64_t offset) {
  Coordinator& coordinator = database_->coordinator();
  // In this order: a commit that is visible to this read has been appended before; and one that is
  // taken back moves `durable` past it, so that the snapshot is looked at afterwards.
  const Lsn durable = coordinator.durable();
  const Lsn appended = std::min(coordinator.appended(), in_sight_);
  const int refused = BeforeRead();
  if (refused != SQLITE_OK) return refused;
  if (Holds(kCheckpointLock) && coordinator.failure() != 0) return Fail(kCommitFailed);
  if (durable >= appended) return SQLITE_OK;
  // Checkpoints read what they have synced themselves; recovery reads under the write lock; the
  // header tells nothing.
  if (!HoldsReadLock() || Holds(kCheckpointLock) || offset < kWalHeaderSize) return SQLITE_OK;
  const int page_size = Header().page_size();
  const uint32_t frame = FrameAt(offset, page_size != 0 ? page_size : size);
  const CommitLog::Owner owner = database_->commits().OwnerOf(frame, durable, appended);
  // A pending page 1 tells nothing but sizes; every writer reads it before it asks for the write
  // lock.
  if (owner.lsn == 0 || (owner.is_header && coordinator.failure() == 0)) return SQLITE_OK;
  if (Holds(kWriteLock)) {
    // A writer may build on pending commits: its own commit is durable only after them.
    undurable_read_ = std::max(undurable_read_, owner.lsn);
    return SQLITE_OK;
  }
  // Frames that were found in the log: nobody else will sync them, and a read-only connection need
  // not be able to.
  if (log_is_read_only_ && !database_->commits().Get(owner.lsn).can_undo) return SQLITE_OK;
  return WaitForReader(owner.lsn);
}

int Connection::WaitForReader(Lsn lsn) {
  database_->stats().reader_waits.Add();
  const int64_t start = database_->clock().NowNanos();
  const int rc = database_->coordinator().WaitDurable(lsn, this);
  database_->stats().reader_wait.Record(database_->clock().NowNanos() - start);
  if (rc == SQLITE_OK) return SQLITE_OK;
  DropSnapshot();
  RollBackOrCloseHole();  // nobody else does for frames that were found in the log
  return AsIoError(rc);
}

void Connection::OnPageRead(const void* data, int size) {
  // Only what goes to the page cache: not a checkpoint's or recovery's reads, which may be of an
  // old one.
  if (!HoldsReadLock() || Holds(kCheckpointLock) || !LooksLikePage1(data, size)) return;
  page1_.OnRead(data, size);
}

// ---- Pages in memory ----

FrameCache::State Connection::StateOf(const WalIndexHeader& header) {
  FrameCache::State state;
  state.salts = header.generation();
  state.change = header.change();
  state.sum = header.checksum();
  return state;
}

void Connection::NoteFrames(const WalIndexHeader& snapshot) {
  cached_through_ = snapshot.last_frame();
  chain_ = database_->frames().ChainOf(StateOf(snapshot));
}

bool Connection::ReadFromMemory(void* data, int size, int64_t offset) const {
  if (!frames_.Holds(size, offset)) return ReadCached(data, size, offset);
  std::memcpy(data, frames_.data() + (offset - frames_.offset()), static_cast<size_t>(size));
  return true;
}

bool Connection::ReadCached(void* page, int size, int64_t offset) const {
  if (chain_ == 0 || !HoldsReadLock()) return false;
  const uint32_t frame = FrameAt(offset, size);
  if (frame > cached_through_ || offset != FrameOffset(frame, size) + kFrameHeaderSize)
    return false;
  return database_->frames().Read(chain_, frame, page, size);
}

}  // namespace groupcommit
