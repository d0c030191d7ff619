// What the shim reads of a log and of a wal-index, and the repair of a log: on any bytes, against
// what the tests' own code makes of them.
#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "fuzz.h"
#include "log_mutator.h"
#include "log_repair.h"
#include "support/hostile_files.h"
#include "support/wal_image.h"
#include "wal_format.h"

namespace groupcommit::testing {
namespace {

// ---- Values

void CheckFrameHeader(const Bytes& log) {
  if (log.size() < kFrameHeaderBytes) return;
  const FrameHeader header = FrameHeader::Decode(log.data());
  FUZZ_CHECK(header.page_number == GetBig32(log, 0), "%u", header.page_number);
  FUZZ_CHECK(header.database_size == GetBig32(log, kFrameDatabaseSizeAt), "%u",
             header.database_size);
}

void CheckFrameNumbers(const Bytes& log) {
  int64_t offset;
  int page_size;
  if (log.size() < sizeof(offset) + sizeof(page_size)) return;
  std::memcpy(&offset, log.data(), sizeof(offset));
  std::memcpy(&page_size, log.data() + sizeof(offset), sizeof(page_size));
  page_size %= 1 << 18;  // SQLite reads no more than 65536 bytes at a time
  const int64_t frame_size = page_size + kFrameHeaderSize;
  const uint32_t frame = FrameAt(offset, page_size);
  if (frame == 0) {
    const bool nonsense = offset < kWalHeaderSize || page_size <= 0;
    FUZZ_CHECK(nonsense || (offset - kWalHeaderSize) / frame_size >= UINT32_MAX, "%jd %d",
               static_cast<intmax_t>(offset), page_size);
    return;
  }
  const int64_t begin = FrameOffset(frame, page_size);
  FUZZ_CHECK(begin <= offset && offset - begin < frame_size, "%jd %d",
             static_cast<intmax_t>(offset), page_size);
  FUZZ_CHECK(FrameAt(begin, page_size) == frame, "%u", frame);
  FUZZ_CHECK(FrameAt(begin + frame_size - 1, page_size) == frame, "%u", frame);
}

void CheckIndexHeader(const Bytes& bytes) {
  alignas(uint64_t) std::array<uint8_t, kIndexHeaderBytes> shared{};
  std::copy_n(bytes.begin(), std::min(bytes.size(), shared.size()), shared.begin());
  const WalIndexHeader header = WalIndexHeader::Load(shared.data());
  uint16_t size;
  std::memcpy(&size, shared.data() + kIndexPageSizeAt, sizeof(size));
  const int page_size = size == 1 ? 65536 : header.page_size();
  FUZZ_CHECK(header.page_size() == page_size, "%d", header.page_size());
  FUZZ_CHECK(page_size >= 0 && page_size < 1 << 17, "%d", page_size);
  FUZZ_CHECK(size % 512 != 0 || page_size == size, "%d", page_size);
  uint32_t last_frame;
  std::memcpy(&last_frame, shared.data() + kIndexLastFrameAt, sizeof(last_frame));
  FUZZ_CHECK(header.last_frame() == last_frame, "%u", header.last_frame());
}

void CheckChecksums(const Bytes& log) {
  int valid = -1;
  WalChecksum checksum;
  if (log.size() >= kLogHeaderBytes && checksum.StartsWith(log.data())) {
    FUZZ_CHECK(static_cast<size_t>(checksum.page_size()) == LogPageSize(log), "%d",
               checksum.page_size());
    const int frames = static_cast<int>(LogFrames(log));
    valid = 0;
    while (valid < frames &&
           checksum.Continues(log.data() + LogFrameAt(log, static_cast<size_t>(valid)))) {
      valid++;
    }
  }
  FUZZ_CHECK(valid == ValidFrames(log), "%d of %d", valid, ValidFrames(log));
}

void CheckPage1(const Bytes& log) {
  constexpr size_t kPage = 512;
  if (log.size() < 2 * kPage) return;
  const uint8_t* page = log.data();
  const bool looks = std::memcmp(page, "SQLite format 3", 16) == 0;
  FUZZ_CHECK(LooksLikePage1(page, kPage) == looks, "%d", looks);
  FUZZ_CHECK(!LooksLikePage1(page, kPage - 1), "a page is not that small");
  FUZZ_CHECK(SamePage1ButSizes(page, page, kPage), "a page is not itself");
  // The first byte of the second half chooses one that changes.
  Bytes other(log.begin(), log.begin() + kPage);
  const size_t at = (size_t{page[kPage]} << 8 | page[kPage + 1]) % kPage;
  other[at] ^= 1;
  const bool size = (at >= 24 && at < 40) || (at >= 92 && at < 100);
  FUZZ_CHECK(SamePage1ButSizes(page, other.data(), kPage) == size, "byte %zu", at);
  SamePage1ButSizes(page, page + kPage, kPage);
}

// ---- Repair

// A log in memory.
struct LogFile : sqlite3_file {
  explicit LogFile(const Bytes& log);
  Bytes bytes;
};

Bytes& BytesOf(sqlite3_file* file) { return static_cast<LogFile*>(file)->bytes; }

int Read(sqlite3_file* file, void* data, int size, sqlite3_int64 offset) {
  const Bytes& bytes = BytesOf(file);
  const auto length = static_cast<sqlite3_int64>(bytes.size());
  const auto there = std::clamp<sqlite3_int64>(length - offset, 0, size);
  std::memset(data, 0, static_cast<size_t>(size));
  if (there > 0) std::memcpy(data, bytes.data() + offset, static_cast<size_t>(there));
  return there == size ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

int Write(sqlite3_file* file, const void* data, int size, sqlite3_int64 offset) {
  Bytes& bytes = BytesOf(file);
  FUZZ_CHECK(offset >= 0 && offset + size <= static_cast<sqlite3_int64>(bytes.size()),
             "%d bytes written at %lld, beyond the end", size, offset);
  std::memcpy(bytes.data() + offset, data, static_cast<size_t>(size));
  return SQLITE_OK;
}

int Sync(sqlite3_file* /*file*/, int /*flags*/) { return SQLITE_OK; }

LogFile::LogFile(const Bytes& log) : sqlite3_file{}, bytes(log) {
  static const sqlite3_io_methods methods = [] {
    sqlite3_io_methods table{};
    table.iVersion = 1;
    table.xRead = Read;
    table.xWrite = Write;
    table.xSync = Sync;
    return table;
  }();
  pMethods = &methods;
}

void CheckRepair(const Bytes& log, unsigned last_frame) {
  const auto valid = static_cast<unsigned>(std::max(ValidFrames(log), 0));
  LogFile file(log);
  const int rc = RewriteLog(&file, last_frame);
  FUZZ_CHECK(rc == (valid < last_frame ? SQLITE_CORRUPT : SQLITE_OK), "%d, %u frames", rc, valid);
  FUZZ_CHECK(file.bytes == log, "rewritten with other bytes");

  if (log.size() < kLogHeaderBytes || LogPageSize(log) == 0) return;
  uint64_t generation;
  std::memcpy(&generation, log.data() + kLogSaltsAt, sizeof(generation));
  const int cut = CutLog(&file, last_frame, generation);
  FUZZ_CHECK(cut == SQLITE_OK, "%d", cut);
  const size_t kept = std::min(LogFrameAt(log, last_frame), log.size());
  FUZZ_CHECK(
      std::equal(log.begin(), log.begin() + static_cast<std::ptrdiff_t>(kept), file.bytes.begin()),
      "cut too early");
  const bool no_salts = GetBig32(log, kLogSaltsAt) == 0 && GetBig32(log, kLogSaltsAt + 4) == 0;
  FUZZ_CHECK(no_salts || ValidFrames(file.bytes) <= static_cast<int>(last_frame), "not cut");
}

const Bytes& FirstLog() {
  static const Bytes log = MakeDatabase(MemoryDir().path(), 512, 6).log;
  return log;
}

}  // namespace
}  // namespace groupcommit::testing

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace groupcommit::testing;  // NOLINT(google-build-using-namespace)
  if (size == 0) return 0;
  const Bytes log = LogOf(data, size);
  CheckFrameHeader(log);
  CheckFrameNumbers(log);
  CheckIndexHeader(log);
  CheckPage1(log);
  CheckChecksums(log);
  CheckRepair(log, data[0] >> kFrameShift);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  using namespace groupcommit::testing;  // NOLINT(google-build-using-namespace)
  return MutateLog(FirstLog(), data, size, max_size, seed);
}
