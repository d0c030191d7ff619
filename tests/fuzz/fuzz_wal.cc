// What the shim reads of a log and of a wal-index; and whole logs: any bytes in place of the log of
// a small database, opened through the shim and without it.
//
// The first byte of the input says what is done to the rest, see Flag; the rest is a log. Inputs
// that are too short for a log grow into one that SQLite has written.
#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>

#include "fuzz.h"
#include "groupcommit.h"
#include "support/hostile_files.h"
#include "support/transcript.h"
#include "support/wal_image.h"
#include "wal_format.h"

namespace groupcommit::testing {
namespace {

enum Flag : uint8_t {
  kRepair = 1,     // with the right checksums
  kSalts = 2,      // and the same salts in all frames
  kWrite = 4,      // the connection writes, too
  kExclusive = 8,  // PRAGMA locking_mode=EXCLUSIVE
};

// ---- Values

void CheckFrameHeader(const Bytes& log) {
  if (log.size() < sizeof(uint64_t)) return;
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

// ---- Files

struct Environment {
  MemoryDir dir;
  FileGuard guard;  // nobody sleeps
  DatabaseImage image;

  Environment() {
    UseZeroedMemory();
    sqlite3_hard_heap_limit64(16 << 20);  // an absurd database size must not take the memory
    image = MakeDatabase(dir.path(), 512, 6);
    const int rc = groupcommit_register("gc", "unix", 0, nullptr);
    FUZZ_CHECK(rc == SQLITE_OK, "register: %d", rc);
    std::filesystem::create_directory(dir.File("gc"));
    std::filesystem::create_directory(dir.File("unix"));
  }
};

Environment& Shared() {
  static Environment environment;
  return environment;
}

std::string Play(const char* vfs, const Bytes& log, unsigned flags) {
  const std::string path = Shared().dir.File(vfs) + "/test.db";
  WriteFile(path, Shared().image.database);
  WriteFile(path + "-wal", log);
  std::filesystem::remove(path + "-shm");
  std::string seen;
  TranscribedDb db(&seen, "db");
  db.Open(path, SQLITE_OPEN_READWRITE, vfs);
  if ((flags & kExclusive) != 0) db.Run("PRAGMA locking_mode=EXCLUSIVE");
  db.Run("PRAGMA integrity_check");
  db.Run("SELECT count(*) FROM t");
  if ((flags & kWrite) != 0) {
    db.Run("INSERT INTO t(x) VALUES('new')");
    db.Run("UPDATE t SET x='changed' WHERE id=2");
    db.Run("PRAGMA integrity_check");
    db.Run("SELECT count(*) FROM t");
  }
  db.Close();
  return seen + "\n" + DescribeFile(path);
}

void CheckFiles(const Bytes& log, unsigned flags) {
  const std::string stock = Play("unix", log, flags);
  const std::string shim = Play("gc", log, flags);
  FUZZ_CHECK(stock == shim, "%s", TranscriptDifference(stock, shim).c_str());
}

}  // namespace
}  // namespace groupcommit::testing

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace groupcommit::testing;  // NOLINT(google-build-using-namespace)
  if (size == 0) return 0;
  Bytes log(data + 1, data + size);
  const unsigned flags = data[0];
  CheckFrameHeader(log);
  CheckFrameNumbers(log);
  CheckIndexHeader(log);
  CheckPage1(log);
  if ((flags & kRepair) != 0) RepairLog(&log, (flags & kSalts) != 0);
  CheckChecksums(log);
  CheckFiles(log, flags);
  return 0;
}

// Changes to numbers in headers, which chance alone would seldom hit, and all that libFuzzer does.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  using namespace groupcommit::testing;  // NOLINT(google-build-using-namespace)
  std::minstd_rand random(seed);
  if (size < kLogHeaderBytes) {
    const Bytes& log = Shared().image.log;
    size = 1 + std::min(max_size - 1, log.size());
    data[0] = static_cast<uint8_t>(random());
    std::copy_n(log.begin(), size - 1, data + 1);
  }
  if (random() % 2 == 0) return LLVMFuzzerMutate(data, size, max_size);
  constexpr uint32_t kNumbers[] = {0, 1, 2, 3, 5, 512, 1024, 65536, 0x7fffffff, 0xffffffff};
  Bytes log(data + 1, data + size);
  const size_t frames = LogPageSize(log) == 0 ? 0 : LogFrames(log);
  const size_t header = random() % 2 == 0 || frames == 0 ? 0 : LogFrameAt(log, random() % frames);
  PutBig32(&log, header + random() % 8 * 4, kNumbers[random() % std::size(kNumbers)]);
  std::copy(log.begin(), log.end(), data + 1);
  return size;
}
