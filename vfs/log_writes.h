// LogWrites: what a connection writes to the log, told apart by where and in what order it does.
//
// Follows wal.c: sqlite3WalFrames() and walWriteOneFrame(): a frame is a header and then its page,
// and the last frame of a commit has the size of the database in its header.
#ifndef GROUPCOMMIT_LOG_WRITES_H_
#define GROUPCOMMIT_LOG_WRITES_H_

#include <cstdint>

#include "wal_format.h"

namespace groupcommit {

class LogWrites {
 public:
  // SQLite has taken the write lock.
  void OnBegin() {
    is_empty_ = true;
    last_ = Last::kOther;
    page1_frame_ = 0;
  }

  // It writes `size` bytes at `offset`. Returns the number of the page that these are; 0: none.
  uint32_t OnWrite(const void* data, int size, int64_t offset) {
    is_empty_ = false;
    if (first_ < 0 || offset < first_) first_ = offset;
    if (size == kFrameHeaderSize && offset >= kWalHeaderSize) {
      header_ = FrameHeader::Decode(data);
      header_offset_ = offset;
      last_ = Last::kFrameHeader;
      return 0;
    }
    const bool is_page = IsPage(offset);
    const bool ends_commit = WouldEndCommit(offset);
    last_ = ends_commit ? Last::kCommitFrame : Last::kOther;
    if (ends_commit) has_commit_ = true;
    page_size_ = size;
    if (is_page && header_.page_number == 1) page1_frame_ = FrameAt(header_offset_, size);
    return is_page ? header_.page_number : 0;
  }

  // It syncs the log: what comes next does not belong to what came before.
  void OnSync() { last_ = Last::kOther; }

  // What was written is not to become a commit.
  void OnRollBack() {
    has_commit_ = false;
    last_ = Last::kOther;
  }
  // SQLite begins or ceases to ask for locks: nothing has told of commits in between.
  void OnModeChanged() {
    first_ = -1;
    OnRollBack();
  }
  // COMMIT is about to return.
  void OnEnd() {
    if (has_commit_) first_ = -1;
    OnRollBack();
  }

  // Has nothing been written since the write lock was taken?
  bool is_empty() const { return is_empty_; }
  // Have all the bytes of a commit been written, while it is not known yet what becomes of it?
  bool has_commit() const { return has_commit_; }
  // Was the last frame of a commit, with a page of so many bytes, written last?
  bool EndsCommit() const { return last_ == Last::kCommitFrame; }
  bool EndsCommit(int page_size) const { return EndsCommit() && page_size_ == page_size; }

  // Would a write at `offset` be the first of a transaction? It overwrites what one wrote that was
  // rolled back; what a transaction writes again of its own lies further behind (wal.c:
  // sqlite3WalFrames()), but for the frame headers after the commit frame (walRewriteChecksums()).
  bool BeginsTransaction(int64_t offset) const {
    return !has_commit_ && (first_ < 0 || offset <= first_);
  }
  // Would a write at `offset` be the page of a commit frame?
  bool WouldEndCommit(int64_t offset) const { return IsPage(offset) && header_.database_size != 0; }
  // Has anything been written since the last commit?
  bool IsInTransaction() const { return first_ >= 0; }

  // Of the last frame header.
  uint64_t generation() const { return header_.generation; }
  // The frame that holds page 1; 0: it was not written since the write lock was taken.
  uint32_t page1_frame() const { return page1_frame_; }

 private:
  enum class Last : uint8_t { kOther, kFrameHeader, kCommitFrame };

  // Does a write at `offset` follow upon the header of its frame?
  bool IsPage(int64_t offset) const {
    return last_ == Last::kFrameHeader && offset == header_offset_ + kFrameHeaderSize;
  }

  bool is_empty_ = true;
  bool has_commit_ = false;
  Last last_ = Last::kOther;
  FrameHeader header_;  // the last one
  int64_t header_offset_ = 0;
  int page_size_ = 0;   // bytes of the last write that was not a frame header
  int64_t first_ = -1;  // the lowest offset since the last commit; -1: there was no write
  uint32_t page1_frame_ = 0;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_LOG_WRITES_H_
