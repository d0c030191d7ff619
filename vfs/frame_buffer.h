// FrameBuffer: frames that a transaction appends to the log, until they are written to it by one
// call.
//
// SQLite writes a frame by two calls, its header and its page (wal.c: walWriteOneFrame()), one
// frame after the other, all of it under the write lock. A call of the file system costs more than
// the copying of a page.
//
// Knows bytes that follow each other, and that they begin with a frame header.
#ifndef GROUPCOMMIT_FRAME_BUFFER_H_
#define GROUPCOMMIT_FRAME_BUFFER_H_

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#include "wal_format.h"

namespace groupcommit {

class FrameBuffer {
 public:
  // Room for 16 frames of the usual 4096 bytes, and for one of the largest page.
  static constexpr int kCapacity = 65536 + 16 * kFrameHeaderSize;

  // Takes what is to be written at `offset`: a frame header where nothing is held, or what lies
  // right behind all that is. False, and nothing is taken, if it is neither, if there is no room,
  // or no memory.
  bool Add(const void* data, int size, int64_t offset) {
    if (is_written_) Clear();
    const bool is_header = size == kFrameHeaderSize && offset >= kWalHeaderSize;
    if (size > kCapacity - size_ || (size_ == 0 ? !is_header : offset != end())) return false;
    if (bytes_ == nullptr) bytes_.reset(new (std::nothrow) uint8_t[kCapacity]);
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

 private:
  std::unique_ptr<uint8_t[]> bytes_;
  int size_ = 0;
  int64_t offset_ = 0;
  bool is_written_ = false;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_FRAME_BUFFER_H_
