// Connection: what a transaction writes to the log, and what of it is kept for others to read.
#include <cstring>

#include "connection.h"

namespace groupcommit {

int Connection::WriteLog(const void* data, int size, int64_t offset) {
  int rc = BeforeLogWrite(offset);
  if (rc == SQLITE_OK) rc = GatherOrWrite(data, size, offset);
  if (rc == SQLITE_OK) OnLogWritten(data, size, offset);
  return rc;
}

// Under the write lock nobody else looks at what is behind the end of the log, and SQLite itself
// not without a call to us. But behind the commit frame it may write frame headers again, and
// publish the commit after that without any call (walRewriteChecksums(), synchronous=NORMAL).
int Connection::GatherOrWrite(const void* data, int size, int64_t offset) {
  const bool gathers = writes_may_be_joined_ && Holds(kWriteLock) && !Holds(kCheckpointLock) &&
                       shm_is_open_ && !commit_written_ && !database_->syncs_on_each_flush();
  if (gathers && frames_.Add(data, size, offset)) return frames_.ends_commit() ? WriteFrames() : 0;
  const int rc = WriteFrames();
  if (rc != SQLITE_OK) return rc;
  if (gathers && frames_.Add(data, size, offset)) return SQLITE_OK;
  frames_.Clear();
  return log_->pMethods->xWrite(log_, data, size, offset);
}

// What has been gathered goes to the log. SQLite takes it for written, and may go on with the
// transaction after an error (pager.c: pager_error() is not asked for one of xRead, nor takes it
// any other than SQLITE_FULL and SQLITE_IOERR for the end): so it is tried again before anything
// else.
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
  log_written_ = true;
  Coordinator& coordinator = database_->coordinator();
  // In exclusive locking mode SQLite does not ask for the write lock, where a failure would end.
  if (coordinator.failure() != 0 && sole_user_ && BeginsTransaction(offset)) TryRollBack();
  return coordinator.failure() == 0 ? PrepareFlusher() : kCommitFailed;
}

// Is a write at `offset` the first of a transaction? It overwrites what one wrote that was rolled
// back; what a transaction writes again of its own lies further behind (wal.c:
// sqlite3WalFrames()), but for the frame headers after the commit frame (walRewriteChecksums()).
bool Connection::BeginsTransaction(int64_t offset) const {
  return !commit_written_ && (first_write_ < 0 || offset <= first_write_);
}

// Follows wal.c: walWriteOneFrame(), a frame header and then its page.
void Connection::OnLogWritten(const void* data, int size, int64_t offset) {
  if (first_write_ < 0 || offset < first_write_) first_write_ = offset;
  counted_ = 0;  // it was that of a commit which failed after its sync, or of a part of this one
  if (size == kFrameHeaderSize && offset >= kWalHeaderSize) {
    frame_header_ = FrameHeader::Decode(data);
    frame_offset_ = offset;
    last_write_ = LastWrite::kFrameHeader;
    return;
  }
  const bool is_page =
      last_write_ == LastWrite::kFrameHeader && offset == frame_offset_ + kFrameHeaderSize;
  last_write_ =
      is_page && frame_header_.database_size != 0 ? LastWrite::kCommitFrame : LastWrite::kOther;
  if (last_write_ == LastWrite::kCommitFrame) commit_written_ = true;
  page_size_written_ = size;
  if (is_page && frame_header_.page_number == 1) {
    page1_frame_ = FrameAt(frame_offset_, size);
    OnPage1Written(static_cast<const uint8_t*>(data), size);
  }
}

// ---- What others will read of it ----

namespace {

FrameCache::State StateOf(const WalIndexHeader& header) {
  FrameCache::State state;
  std::memcpy(&state.salts, header.salts(), sizeof(state.salts));
  state.change = header.change();
  return state;
}

}  // namespace

// A commit has just been published, and the write lock is still ours. What has been gathered last
// are its last frames: pages that SQLite wrote again are those of earlier ones (wal.c:
// sqlite3WalFrames()).
void Connection::CacheFrames(const WalIndexHeader& before, const WalIndexHeader& after) {
  const int page_size = after.page_size();
  FrameCache::Frames frames;
  if (!writes_may_be_joined_) return;
  if (frames_.ends_commit() && frames_.end() == FrameOffset(after.last_frame() + 1, page_size)) {
    frames.first = FrameAt(frames_.offset(), page_size);
    frames.count = frames_.size() / (kFrameHeaderSize + page_size);
    frames.bytes = frames_.data();
    frames.header_size = kFrameHeaderSize;
  }
  database_->frames().OnCommit(StateOf(before), StateOf(after), frames, page_size);
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
