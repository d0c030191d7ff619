// Connection: what a transaction writes to the log, and what of it is kept for others to read.
#include <cstring>

#include "connection.h"

namespace groupcommit {

int Connection::WriteLog(const void* data, int size, int64_t offset) {
  int rc = BeforeLogWrite(offset);
  if (rc == SQLITE_OK) rc = GatherOrWrite(data, size, offset);
  if (rc != SQLITE_OK) {
    writes_.OnRollBack();
    return rc;
  }
  counted_ = 0;  // it was that of a commit which failed after its sync, or of a part of this one
  if (writes_.OnWrite(data, size, offset) == 1) page1_.OnWrite(data, size);
  return SQLITE_OK;
}

// Under the write lock nobody else looks at what is behind the end of the log, and SQLite itself
// does not without a call to us. So frames may be gathered, but only up to the commit frame. Behind
// that SQLite may write frame headers again (walRewriteChecksums()), and if there is no sync
// (synchronous=NORMAL), it publishes the commit without any further call.
int Connection::GatherOrWrite(const void* data, int size, int64_t offset) {
  const bool gathers = writes_may_be_joined_ && Holds(kWriteLock) && !Holds(kCheckpointLock) &&
                       shm_is_open_ && !writes_.has_commit() && !database_->syncs_on_each_flush();
  if (gathers && frames_.Add(data, size, offset))
    return writes_.WouldEndCommit(offset) ? WriteFrames() : SQLITE_OK;
  const int rc = WriteFrames();
  if (rc != SQLITE_OK) return rc;
  if (gathers && frames_.Add(data, size, offset)) return SQLITE_OK;
  frames_.Clear();
  return log_->pMethods->xWrite(log_, data, size, offset);
}

// What has been gathered goes to the log. SQLite takes it for written, and may go on with the
// transaction after an error: pager.c: pager_error() is not told of one that xRead returns, and
// takes only SQLITE_FULL and SQLITE_IOERR for the end. So it is tried again before anything else.
int Connection::WriteFrames() {
  if (!frames_.is_pending()) return SQLITE_OK;
  const int rc = log_->pMethods->xWrite(log_, frames_.data(), frames_.size(), frames_.offset());
  if (rc == SQLITE_OK) frames_.SetWritten();
  return rc;
}

int Connection::WriteFramesBeneath(int size, int64_t offset) {
  const bool is_apart = offset >= frames_.end() || offset + size <= frames_.offset();
  return is_apart ? SQLITE_OK : WriteFrames();
}

int Connection::BeforeLogWrite(int64_t offset) {
  Coordinator& coordinator = database_->coordinator();
  // In exclusive locking mode SQLite asks for no write lock, which is where others end a failure.
  if (coordinator.failure() != 0 && sole_user_ && writes_.BeginsTransaction(offset)) TryRollBack();
  if (coordinator.failure() != 0) return kCommitFailed;
  const int rc = PrepareFlusher();
  return rc == SQLITE_OK && writes_.WouldEndCommit(offset) ? BeforePublishingSeveral() : rc;
}

// A commit has just been published, and the write lock is still ours. What has been gathered last
// are its last frames: pages that SQLite wrote again are those of earlier ones (wal.c:
// sqlite3WalFrames()).
void Connection::CacheFrames(const WalIndexHeader& before, const WalIndexHeader& after) {
  if (!writes_may_be_joined_) return;
  const int page_size = after.page_size();
  FrameCache::Frames frames;
  if (frames_.size() != 0 && frames_.end() == FrameOffset(after.last_frame() + 1, page_size)) {
    frames.first = FrameAt(frames_.offset(), page_size);
    frames.count = frames_.size() / (kFrameHeaderSize + page_size);
    frames.bytes = frames_.data();
    frames.header_size = kFrameHeaderSize;
  }
  database_->frames().OnCommit(StateOf(before), StateOf(after), frames, page_size);
}

}  // namespace groupcommit
