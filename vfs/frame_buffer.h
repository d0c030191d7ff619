// FrameBuffer: frames that a transaction appends to the log, until they are written to it by one
// call.
//
// SQLite writes a frame by two calls, its header and its page (wal.c: walWriteOneFrame()), one
// frame after the other, all of it under the write lock. A call of the file system costs more than
// the copying of a page.
//
// The memory is lent for the time of a transaction. As one at a time has the write lock, a database
// needs no more, and whoever commits next finds it in the processor's cache.
//
// Knows bytes that follow each other, and that they begin with a frame header.
#ifndef GROUPCOMMIT_FRAME_BUFFER_H_
#define GROUPCOMMIT_FRAME_BUFFER_H_

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "wal_format.h"

namespace groupcommit {

// Lends a FrameBuffer its memory. Any thread.
class FrameMemory {
 public:
  using Bytes = std::unique_ptr<uint8_t[]>;
  // Room for 16 frames of the usual 4096 bytes, and for one of the largest page.
  static constexpr int kCapacity = 65536 + 16 * kFrameHeaderSize;

  FrameMemory() = default;
  FrameMemory(const FrameMemory&) = delete;
  FrameMemory& operator=(const FrameMemory&) = delete;
  ~FrameMemory() { const Bytes last(spare_.load(std::memory_order_relaxed)); }

  // What was given back, or new memory; null if there is none.
  Bytes Take() {
    Bytes bytes(spare_.exchange(nullptr, std::memory_order_acquire));
    if (bytes == nullptr) bytes.reset(new (std::nothrow) uint8_t[kCapacity]);
    return bytes;
  }
  // Frees what was there already, if somebody else has given his back meanwhile.
  void GiveBack(Bytes bytes) {
    bytes.reset(spare_.exchange(bytes.release(), std::memory_order_acq_rel));
  }

 private:
  std::atomic<uint8_t*> spare_{nullptr};
};

class FrameBuffer {
 public:
  explicit FrameBuffer(FrameMemory* memory) : memory_(memory) {}

  // Takes what is to be written at `offset`: a frame header where nothing is held, or what lies
  // right behind all that is. False, and nothing is taken, if it is neither, if there is no room,
  // or no memory.
  bool Add(const void* data, int size, int64_t offset) {
    if (is_written_) Clear();
    const bool is_header = size == kFrameHeaderSize && offset >= kWalHeaderSize;
    if (size > FrameMemory::kCapacity - size_ || (size_ == 0 ? !is_header : offset != end()))
      return false;
    if (bytes_ == nullptr) bytes_ = memory_->Take();
    if (bytes_ == nullptr) return false;
    if (size_ == 0) offset_ = offset;
    std::memcpy(&bytes_[static_cast<size_t>(size_)], data, static_cast<size_t>(size));
    size_ += size;
    return true;
  }

  // Is there anything that has still to be written?
  bool is_pending() const { return size_ != 0 && !is_written_; }

  // Does a read of the log want some of that?
  bool Holds(int size, int64_t offset) const {
    return is_pending() && offset >= offset_ && offset + size <= end();
  }

  // What is held, also after it has been written, until more is added.
  const uint8_t* data() const { return bytes_.get(); }
  int size() const { return size_; }
  int64_t offset() const { return offset_; }
  int64_t end() const { return offset_ + size_; }

  void SetWritten() { is_written_ = true; }
  void Clear() {
    size_ = 0;
    is_written_ = false;
  }
  // The transaction is over, and what it has gathered is of no use any more.
  void GiveBack() {
    Clear();
    if (bytes_ != nullptr) memory_->GiveBack(std::move(bytes_));
  }

 private:
  FrameMemory* const memory_;
  FrameMemory::Bytes bytes_;
  int size_ = 0;
  int64_t offset_ = 0;
  bool is_written_ = false;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_FRAME_BUFFER_H_
