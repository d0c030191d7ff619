// The parts of SQLite's WAL and wal-index formats that the shim looks at, as values. The formats
// are documented at https://sqlite.org/walformat.html and at the head of SQLite's wal.c.
#ifndef GROUPCOMMIT_WAL_FORMAT_H_
#define GROUPCOMMIT_WAL_FORMAT_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>

namespace groupcommit {

inline constexpr int kWalHeaderSize = 32;
inline constexpr int kFrameHeaderSize = 24;

inline uint32_t BigEndian32(const uint8_t* bytes) {
  return static_cast<uint32_t>(bytes[0]) << 24 | static_cast<uint32_t>(bytes[1]) << 16 |
         static_cast<uint32_t>(bytes[2]) << 8 | static_cast<uint32_t>(bytes[3]);
}

// The first 16 bytes of a frame header; see wal.c: walEncodeFrame().
struct FrameHeader {
  uint32_t page_number = 0;
  uint32_t database_size = 0;  // pages; non-zero only in the last frame of a commit
  uint64_t generation = 0;     // of the log: WalIndexHeader::generation()

  static FrameHeader Decode(const void* bytes) {
    const auto* p = static_cast<const uint8_t*>(bytes);
    FrameHeader header{BigEndian32(p), BigEndian32(p + 4)};
    std::memcpy(&header.generation, p + 8, sizeof(header.generation));
    return header;
  }
};

inline int64_t FrameOffset(uint32_t frame, int page_size) {
  return kWalHeaderSize + static_cast<int64_t>(frame - 1) * (page_size + kFrameHeaderSize);
}

// The 1-based frame in which the byte at `offset` lies; 0 for the WAL header or a nonsensical
// offset.
inline uint32_t FrameAt(int64_t offset, int page_size) {
  if (offset < kWalHeaderSize || page_size <= 0) return 0;
  const int64_t frame = (offset - kWalHeaderSize) / (page_size + kFrameHeaderSize) + 1;
  return frame <= UINT32_MAX ? static_cast<uint32_t>(frame) : 0;
}

// The words that several processes share in the wal-index. Relaxed: SQLite's own locks and barriers
// order them.
inline uint32_t LoadShared(volatile void* wal_index, int word) {
  auto* words = static_cast<uint32_t*>(const_cast<void*>(wal_index));
  return std::atomic_ref<uint32_t>(words[word]).load(std::memory_order_relaxed);
}
inline void StoreShared(volatile void* wal_index, int word, uint32_t value) {
  auto* words = static_cast<uint32_t*>(const_cast<void*>(wal_index));
  std::atomic_ref<uint32_t>(words[word]).store(value, std::memory_order_relaxed);
}

// struct WalIndexHdr (wal.c), which stands twice at the start of the wal-index.
class WalIndexHeader {
 public:
  static constexpr int kWords = 12;
  using Words = std::array<uint32_t, kWords>;

  WalIndexHeader() = default;
  explicit WalIndexHeader(const Words& words) : words_(words) {}
  const Words& words() const { return words_; }

  // Copies the first of the two. The copy is exact while the caller holds the write lock; without
  // it, it may mix two commits.
  static WalIndexHeader Load(volatile void* wal_index) {
    WalIndexHeader header;
    for (int i = 0; i < kWords; i++)
      header.words_[static_cast<size_t>(i)] = LoadShared(wal_index, i);
    return header;
  }

  // Writes one of the two; `copy` is 0 or 1. See wal.c: walIndexWriteHdr() for the order.
  void Store(volatile void* wal_index, int copy) const {
    for (int i = 0; i < kWords; i++) {
      StoreShared(wal_index, copy * kWords + i, words_[static_cast<size_t>(i)]);
    }
  }

  // Grows with each commit, whoever makes it.
  uint32_t change() const { return words_[2]; }
  // The same header, as if there had been so many changes.
  WalIndexHeader WithChange(uint32_t change) const {
    WalIndexHeader header = *this;
    header.words_[2] = change;
    // wal.c: walIndexWriteHdr(), in the machine's byte order.
    uint32_t sum[2] = {0, 0};
    for (size_t i = 0; i < kWords - 2; i += 2) {
      sum[0] += header.words_[i] + sum[1];
      sum[1] += header.words_[i + 1] + sum[0];
    }
    header.words_[kWords - 2] = sum[0];
    header.words_[kWords - 1] = sum[1];
    return header;
  }
  // Do both show the same log, as far? A recovery counts changes from 0 again (wal.c:
  // walIndexRecover()), and a process that takes back its commits counts on.
  bool ShowsTheSameAs(const WalIndexHeader& other) const {
    return *this == other || *this == other.WithChange(change());
  }
  // False if nobody has made one yet, or a process has died while it wrote it (wal.c: WalIndexHdr,
  // isInit; walIndexWriteHdr()).
  bool IsWhole() const {
    const bool is_made = reinterpret_cast<const uint8_t*>(words_.data())[12] != 0;
    return is_made && *this == WithChange(change());
  }
  // In bytes; 0 before the first commit of a new log.
  int page_size() const {
    uint16_t size;  // bytes 14 and 15, in the machine's byte order; 65536 is stored as 1
    std::memcpy(&size, reinterpret_cast<const uint8_t*>(words_.data()) + 14, sizeof(size));
    return (size & 0xfe00) + ((size & 0x0001) << 16);
  }
  // The last frame that is part of a commit; 0 for an empty log.
  uint32_t last_frame() const { return words_[4]; }
  // This generation of the log: its salts, in the order of bytes in which they stand in each of its
  // frame headers.
  uint64_t generation() const { return TwoWords(8); }
  // Of all the other words.
  uint64_t checksum() const { return TwoWords(10); }

  friend bool operator==(const WalIndexHeader&, const WalIndexHeader&) = default;

 private:
  uint64_t TwoWords(size_t first) const {
    uint64_t both;
    std::memcpy(&both, &words_[first], sizeof(both));
    return both;
  }

  Words words_{};
};

// struct WalCkptInfo (wal.c), behind the two headers.
struct CheckpointInfo {
  static constexpr int kReadMarks = 5;

  uint32_t copied = 0;                   // nBackfill: so many frames are in the database file
  uint32_t attempted = 0;                // nBackfillAttempted: or may be there, never fewer
  uint32_t read_marks[kReadMarks] = {};  // how far the readers with lock 3+i may read

  static CheckpointInfo Load(volatile void* wal_index) {
    CheckpointInfo info;
    info.copied = LoadShared(wal_index, kBackfill);
    info.attempted = std::max(info.copied, LoadShared(wal_index, kBackfillAttempted));
    for (int i = 0; i < kReadMarks; i++) {
      info.read_marks[i] = LoadShared(wal_index, kFirstReadMark + i);
    }
    return info;
  }

  // A checkpoint has announced what it is going to copy, and copies nothing. `before` is what an
  // earlier one had announced, perhaps of another process, which may have copied half of it.
  // REQUIRES: the checkpoint lock.
  static void ForgetAttempt(volatile void* wal_index, uint32_t before) {
    const CheckpointInfo info = Load(wal_index);
    StoreShared(wal_index, kBackfillAttempted,
                std::max(info.copied, std::min(info.attempted, before)));
  }

  // Makes readers go by the log alone, and the next checkpoint begin at its first frame. No
  // snapshot that ends before `frame` may be opened any more (sqlite3_snapshot_open()): what was
  // copied is in the database file. As wal.c: walIndexRecover() does. REQUIRES: the checkpoint
  // lock.
  static void ForgetBackfill(volatile void* wal_index, uint32_t frame) {
    StoreShared(wal_index, kBackfill, 0);
    StoreShared(wal_index, kBackfillAttempted, frame);
  }

 private:
  static constexpr int kBackfill = 24;
  static constexpr int kFirstReadMark = 25;
  static constexpr int kBackfillAttempted = 32;
};

// The chain of checksums that runs through a log; wal.c: walChecksumBytes() and walDecodeFrame().
class WalChecksum {
 public:
  // Is this a valid header of a log?
  bool StartsWith(const uint8_t* header) {
    constexpr uint32_t kMagic = 0x377f0682;  // the lowest bit tells the byte order of the checksums
    constexpr uint32_t kVersion = 3007000;
    const uint32_t magic = BigEndian32(header);
    page_size_ = static_cast<int>(BigEndian32(header + 8));
    if ((magic & ~1u) != kMagic || BigEndian32(header + 4) != kVersion || page_size_ < 512 ||
        page_size_ > 65536 || (page_size_ & (page_size_ - 1)) != 0) {
      return false;
    }
    big_endian_ = (magic & 1u) != 0;
    std::memcpy(salts_, header + 16, sizeof(salts_));
    Add(header, 24);
    return Matches(header + 24);
  }

  // Is this frame, header and page, the valid successor of what came before?
  bool Continues(const uint8_t* frame) {
    Add(frame, 8);
    Add(frame + kFrameHeaderSize, page_size_);
    return BigEndian32(frame) != 0 && std::memcmp(frame + 8, salts_, sizeof(salts_)) == 0 &&
           Matches(frame + 16);
  }

  int page_size() const { return page_size_; }

 private:
  uint32_t Word(const uint8_t* bytes) const {
    const uint32_t word = BigEndian32(bytes);
    return big_endian_ ? word
                       : word >> 24 | (word >> 8 & 0xff00) | (word << 8 & 0xff0000) | word << 24;
  }
  void Add(const uint8_t* bytes, int size) {
    for (int i = 0; i < size; i += 8) {
      sum_[0] += Word(bytes + i) + sum_[1];
      sum_[1] += Word(bytes + i + 4) + sum_[0];
    }
  }
  bool Matches(const uint8_t* stored) const {
    return BigEndian32(stored) == sum_[0] && BigEndian32(stored + 4) == sum_[1];
  }

  int page_size_ = 0;
  bool big_endian_ = false;
  uint8_t salts_[8] = {};
  uint32_t sum_[2] = {0, 0};
};

// Is the change from one page 1 to the next one of sizes and counters only: the file change
// counter, the size in pages, the freelist (bytes 24-39), version-valid-for and the library's
// version number (92-99)? Then it tells a reader nothing about the schema or about rows; see
// btree.c and the file format's section 1.3.
inline bool SamePage1ButSizes(const uint8_t* before, const uint8_t* after, int page_size) {
  constexpr int kSizes = 24;
  constexpr int kSizesEnd = 40;
  constexpr int kVersions = 92;
  constexpr int kVersionsEnd = 100;
  return std::memcmp(before, after, kSizes) == 0 &&
         std::memcmp(before + kSizesEnd, after + kSizesEnd, kVersions - kSizesEnd) == 0 &&
         std::memcmp(before + kVersionsEnd, after + kVersionsEnd,
                     static_cast<size_t>(page_size - kVersionsEnd)) == 0;
}

inline bool SameSchemaCookie(const uint8_t* page1, const uint8_t* other) {
  constexpr int kCookie = 40;
  return BigEndian32(page1 + kCookie) == BigEndian32(other + kCookie);
}

// Every page 1 begins with this, its terminating zero included.
inline constexpr char kDatabaseMagic[] = "SQLite format 3";

inline bool LooksLikePage1(const void* page, int page_size) {
  return page_size >= 512 && std::memcmp(page, kDatabaseMagic, sizeof(kDatabaseMagic)) == 0;
}

}  // namespace groupcommit

#endif  // GROUPCOMMIT_WAL_FORMAT_H_
