// Hostile input: a log or a wal-index next to a database that nobody should find there. What stock
// SQLite does with it, SQLite through the shim does too: result codes, messages, rows, and the
// files that remain. Nothing crashes, and nothing takes longer.
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <optional>
#include <random>
#include <set>
#include <string>

#include "groupcommit.h"
#include "support/hostile_files.h"
#include "support/scale.h"
#include "support/sqlite_helpers.h"
#include "support/transcript.h"
#include "support/wal_image.h"

namespace groupcommit::testing {
namespace {

struct Mode {
  const char* name;
  const char* query;  // of the URI
  bool exclusive;     // PRAGMA locking_mode
};
constexpr Mode kModes[] = {{"read-write", "", false},
                           {"exclusive", "", true},
                           {"read-only", "?mode=ro", false},
                           {"read-only wal-index", "?mode=ro&readonly_shm=1", false},
                           {"immutable", "?immutable=1", false}};
constexpr const char* kCheckpoints[] = {
    "PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(FULL)",
    "PRAGMA wal_checkpoint(RESTART)", "PRAGMA wal_checkpoint(TRUNCATE)"};

struct Scene {
  std::string name;
  Found log;
  Found index;
  // Somebody else has the database open, so that the wal-index is believed. If not, the first
  // connection throws its contents away.
  bool index_in_use = false;
  Mode mode = kModes[0];
  size_t checkpoint = 0;  // in kCheckpoints
};

using Random = std::mt19937;

// 0 <= result < n.
size_t Below(Random& random, size_t n) { return random() % n; }
bool OneIn(Random& random, size_t n) { return Below(random, n) == 0; }

class HostileFileTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    UseFreshMemory();
    // Absurd numbers must not fill the disk or the memory: with and without the shim they run into
    // the same limits.
    ASSERT_NE(std::signal(SIGXFSZ, SIG_IGN), SIG_ERR);
    const rlimit file_size{64 << 20, RLIM_INFINITY};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &file_size), 0);
    sqlite3_hard_heap_limit64(16 << 20);
    // The salts of a new log are random; here, always the same.
    int any;
    sqlite3_randomness(sizeof(any), &any);
    sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SAVE);
  }

  HostileFileTest() { EXPECT_EQ(groupcommit_register("gc", "unix", 0, nullptr), SQLITE_OK); }
  ~HostileFileTest() override {
    EXPECT_EQ(groupcommit_unregister("gc"), SQLITE_OK) << "a connection is still open";
  }

  // All that a program can see of the scene through `vfs`.
  std::string Play(const Scene& scene, const char* vfs) {
    const std::string dir = dir_.File(vfs);
    std::filesystem::create_directory(dir);
    const std::string path = dir + "/test.db";
    WriteFile(path, image_.database);
    guard_.Place(path + "-wal", scene.log);
    guard_.Place(path + "-shm", scene.index);
    std::optional<IndexUser> user;
    if (scene.index_in_use) user.emplace(path + "-shm");

    std::string seen;
    RenewMemory();
    sqlite3_test_control(SQLITE_TESTCTRL_PRNG_RESTORE);
    Run("file:" + path + scene.mode.query, vfs, scene, &seen);
    for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
      seen += std::string("\ntest.db") + suffix + ": " + DescribeFile(path + suffix);
    }
    std::filesystem::remove_all(dir);
    return seen;
  }

  static void Run(const std::string& uri, const char* vfs, const Scene& scene, std::string* seen) {
    TranscribedDb a(seen, "a");
    TranscribedDb b(seen, "b");
    a.Open(uri, kOpenCreate, vfs);
    if (scene.mode.exclusive) a.Run("PRAGMA locking_mode=EXCLUSIVE");
    a.Run("PRAGMA synchronous=FULL");
    a.Run("SELECT count(*), total(id) FROM t");
    a.Run("PRAGMA integrity_check");
    a.Run("SELECT x FROM t ORDER BY id");
    a.Run("INSERT INTO t(x) VALUES('from a')");
    b.Open(uri, kOpenCreate, vfs);
    b.Run("SELECT count(*) FROM u");
    b.Run("INSERT INTO t(x) VALUES('from b')");
    a.Run("SELECT count(*), max(id) FROM t");
    a.Run("CREATE TABLE v(x)");
    b.Run("BEGIN IMMEDIATE");
    b.Run("UPDATE t SET x='rolled back'");
    b.Run("ROLLBACK");
    a.Run(kCheckpoints[scene.checkpoint]);
    b.Run("UPDATE t SET x='updated by b' WHERE id<5");
    b.Run("PRAGMA integrity_check");
    b.Close();
    a.Run("SELECT x FROM t ORDER BY x");
    a.Close();
    a.Open(uri, kOpenCreate, vfs);
    a.Run("PRAGMA integrity_check");
    a.Run("SELECT name FROM sqlite_schema");
    a.Run("INSERT INTO t(x) VALUES('again')");
    a.Run("SELECT x FROM t ORDER BY id");
    a.Close();
  }

  // Plays the scene on two copies, with and without the shim.
  void Compare(const Scene& scene) {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    const std::string stock = Play(scene, "unix");
    const auto middle = Clock::now();
    const std::string shim = Play(scene, "gc");
    const auto end = Clock::now();
    EXPECT_TRUE(stock == shim) << scene.name << ", " << scene.mode.name << "\n"
                               << TranscriptDifference(stock, shim);
    EXPECT_LT(end - middle, (middle - start) + std::chrono::seconds(5)) << scene.name;
    outcomes_.insert(stock);
  }

  void CompareInAllModes(Scene scene) {
    for (const Mode& mode : kModes) {
      scene.mode = mode;
      scene.checkpoint = Below(random_, std::size(kCheckpoints));
      Compare(scene);
    }
  }

  // In one mode, or in as many as the scale of the tests says.
  void CompareInSomeMode(Scene scene) {
    for (int i = 0; i < Scaled(1); i++) {
      scene.mode = kModes[OneIn(random_, 2) ? 0 : Below(random_, std::size(kModes))];
      scene.checkpoint = Below(random_, std::size(kCheckpoints));
      Compare(scene);
    }
  }

  // Without a wal-index, and where the one of the true log is in use.
  void CompareLog(const std::string& name, const Bytes& log) {
    const Found found{FoundKind::kFile, log};
    CompareInSomeMode({.name = name, .log = found, .index = {}});
    CompareInSomeMode({.name = name + ", and a wal-index in use",
                       .log = found,
                       .index = {FoundKind::kFile, image_.index},
                       .index_in_use = true});
  }

  // Next to the true log, in use and left behind.
  void CompareIndex(const std::string& name, const Bytes& index, bool left_behind = true) {
    Scene scene{.name = name,
                .log = {FoundKind::kFile, image_.log},
                .index = {FoundKind::kFile, index},
                .index_in_use = true};
    CompareInSomeMode(scene);
    scene.index_in_use = false;
    if (left_behind) CompareInSomeMode(scene);
  }

  const MemoryDir dir_;
  const DatabaseImage image_ = MakeDatabase(dir_.path(), 1024, 20);
  FileGuard guard_;
  Random random_;  // with the same seed in each test
  std::set<std::string> outcomes_;
};

constexpr uint32_t kAbsurd[] = {0, 1, 2, 511, 513, 65535, 65536, 131072, 0x7fffffff, 0xffffffff};

TEST_F(HostileFileTest, TheTrueFiles) {
  ASSERT_EQ(ValidFrames(image_.log), LogFrames(image_.log));
  for (const bool in_use : {false, true}) {
    CompareInAllModes({.name = "the true files",
                       .log = {FoundKind::kFile, image_.log},
                       .index = {FoundKind::kFile, image_.index},
                       .index_in_use = in_use});
  }
}

TEST_F(HostileFileTest, NotAFile) {
  for (const FoundKind kind : kAllFoundKinds) {
    CompareInAllModes({.name = std::string("log: ") + FoundKindName(kind),
                       .log = {kind, image_.log},
                       .index = {}});
    CompareInAllModes({.name = std::string("wal-index: ") + FoundKindName(kind),
                       .log = {FoundKind::kFile, image_.log},
                       .index = {kind, image_.index}});
  }
}

TEST_F(HostileFileTest, Lengths) {
  const size_t second = LogFrameAt(image_.log, 1);
  for (const size_t size : {size_t{0}, size_t{1}, size_t{31}, size_t{32}, size_t{33}, size_t{56},
                            second - 1, second, image_.log.size() - 1, image_.log.size() + 5000}) {
    Bytes log = image_.log;
    log.resize(size, 0xa5);
    CompareLog("log of " + std::to_string(size) + " bytes", log);
  }
  for (const size_t size : {0, 1, 3, 47, 48, 96, 136, 4096, 32767, 32769, 100000}) {
    Bytes index = image_.index;
    index.resize(size, 0xa5);
    CompareIndex("wal-index of " + std::to_string(size) + " bytes", index);
  }
}

TEST_F(HostileFileTest, OfAnotherDatabase) {
  for (const int page_size : {512, 1024, 4096, 65536}) {
    const DatabaseImage other = MakeDatabase(dir_.path(), page_size, 50);
    const std::string of = " of a database of page size " + std::to_string(page_size);
    CompareLog("log" + of, other.log);
    CompareIndex("wal-index" + of, other.index);
  }
}

TEST_F(HostileFileTest, LogHeaders) {
  for (size_t at = 0; at < kLogHeaderBytes; at += 4) {
    for (const uint32_t value : kAbsurd) {
      Bytes log = image_.log;
      PutBig32(&log, at, value);
      const bool repair = at < kLogHeaderBytes - 8 && value % 2 != 0;
      if (repair) RepairLog(&log, value != 1);
      CompareLog("log header with " + std::to_string(value) + " at " + std::to_string(at), log);
    }
  }
}

TEST_F(HostileFileTest, Frames) {
  const size_t frames = LogFrames(image_.log);
  const auto last = LogFrameAt(image_.log, frames - 1);
  for (const size_t field : {size_t{0}, kFrameDatabaseSizeAt}) {
    for (const uint32_t value : kAbsurd) {
      for (const size_t frame : {size_t{0}, frames / 2, frames - 1}) {
        Bytes log = image_.log;
        PutBig32(&log, LogFrameAt(log, frame) + field, value);
        RepairLog(&log, true);
        CompareLog("frame " + std::to_string(frame) + " with " + std::to_string(value) + " at " +
                       std::to_string(field),
                   log);
      }
    }
  }
  Bytes log = image_.log;
  log[last + kFrameSaltsAt] ^= 1;
  CompareLog("last frame with other salts", log);
  RepairLog(&log, false);
  CompareLog("last frame with other salts and a right checksum", log);
  log = image_.log;
  log[kLogSaltsAt + 4] ^= 1;
  RepairLog(&log, false);
  CompareLog("header with other salts", log);
}

// What stock SQLite takes a valid header of a wal-index at its word for, though it should not: a
// log of 2^32 frames fills the disk with wal-index; with pages larger than the true ones it reads
// beyond its buffers.
constexpr uint32_t kMaxFrames = 4000;
constexpr uint16_t kPageSizes[] = {0, 512, 1024};

TEST_F(HostileFileTest, Indexes) {
  for (size_t at = 0; at < kIndexHeadBytes; at += 4) {
    for (const uint32_t value : {0u, 1u, kMaxFrames, UINT32_MAX}) {
      if (at == kIndexLastFrameAt && value > kMaxFrames) continue;
      Bytes index = image_.index;
      PutNative32(&index, at, value);
      PutNative16(&index, kIndexPageSizeAt, kPageSizes[at == 12 ? value % 2 : 2]);
      if (at < kIndexHeaderBytes) RepairIndex(&index);
      CompareIndex("wal-index with " + std::to_string(value) + " at " + std::to_string(at), index,
                   /*left_behind=*/false);
    }
  }
}

// ---- Generated

void Scribble(Random& random, Bytes* bytes, size_t begin, size_t end) {
  end = std::min(end, bytes->size());
  for (size_t i = begin; i < end; i++) (*bytes)[i] = static_cast<uint8_t>(random());
}

// A few changes that need not make sense; about half of the time so that checksums are right.
Bytes TamperedLog(Random& random, Bytes log, const Bytes& other) {
  for (size_t changes = Below(random, 4); changes > 0; changes--) {
    const size_t frame = LogPageSize(log) == 0 || LogFrames(log) == 0
                             ? 0
                             : LogFrameAt(log, Below(random, LogFrames(log)));
    const size_t from = Below(random, log.size() + 1);
    switch (Below(random, 9)) {
      case 0:
        Scribble(random, &log, from, from + Below(random, 64));
        break;
      case 1:
        Scribble(random, &log, 0, log.size());
        break;
      case 2:
        log.resize(from);
        break;
      case 3:
        log.resize(log.size() + Below(random, 5000));
        Scribble(random, &log, log.size() - 100, log.size());
        break;
      case 4:  // a number in a header
        PutBig32(&log, frame + 4 * Below(random, 6), kAbsurd[Below(random, std::size(kAbsurd))]);
        break;
      case 5:  // the same frames again
        log.insert(log.end(),
                   log.begin() + static_cast<std::ptrdiff_t>(std::min(frame, log.size())),
                   log.end());
        break;
      case 6:  // the start of another log
        std::copy_n(other.begin(), std::min({from, other.size(), log.size()}), log.begin());
        break;
      case 7:  // the other byte order
        if (log.size() > 3) log[3] ^= 1;
        break;
      case 8:  // a page
        Scribble(random, &log, frame + kFrameHeaderBytes, frame + kFrameHeaderBytes + 100);
        break;
    }
  }
  if (OneIn(random, 2)) RepairLog(&log, OneIn(random, 2));
  return log;
}

Bytes TamperedIndex(Random& random, Bytes index, const Bytes& other) {
  for (size_t changes = Below(random, 4); changes > 0; changes--) {
    const size_t from = Below(random, kIndexHeadBytes);
    switch (Below(random, 6)) {
      case 0:
        Scribble(random, &index, from, from + Below(random, 64));
        break;
      case 1:
        Scribble(random, &index, 0, index.size());
        break;
      case 2:
        index.resize(Below(random, index.size() + 1));
        break;
      case 3:
        PutNative32(&index, from / 4 * 4, static_cast<uint32_t>(Below(random, 100)));
        break;
      case 4:  // the hash table
        Scribble(random, &index, kIndexHeadBytes, index.size());
        break;
      case 5:
        std::copy_n(other.begin(), std::min({from, other.size(), index.size()}), index.begin());
        break;
    }
  }
  if (OneIn(random, 2)) {
    PutNative16(&index, kIndexPageSizeAt, kPageSizes[Below(random, std::size(kPageSizes))]);
    PutNative32(&index, kIndexLastFrameAt, static_cast<uint32_t>(Below(random, kMaxFrames)));
    RepairIndex(&index);
  }
  return index;
}

TEST_F(HostileFileTest, Generated) {
  const DatabaseImage other = MakeDatabase(dir_.path(), 1024, 30);
  const int cases = Scaled(300);
  for (int seed = 1; seed <= cases && !HasFailure(); seed++) {
    Random random(static_cast<uint32_t>(seed));
    Scene scene;
    scene.name = "seed " + std::to_string(seed);
    scene.log = {FoundKind::kFile, TamperedLog(random, image_.log, other.log)};
    if (OneIn(random, 2)) {
      scene.index = {FoundKind::kFile, TamperedIndex(random, image_.index, other.index)};
      scene.index_in_use = !OneIn(random, 4);
    }
    if (OneIn(random, 3)) scene.mode = kModes[Below(random, std::size(kModes))];
    scene.checkpoint = Below(random, std::size(kCheckpoints));
    Compare(scene);
  }
  // The cases differ in what comes out of them.
  EXPECT_GT(outcomes_.size(), static_cast<size_t>(std::min(cases, 300)) / 4);
}

}  // namespace
}  // namespace groupcommit::testing
