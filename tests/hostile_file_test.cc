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
#include <set>
#include <string>

#include "groupcommit.h"
#include "support/hostile_files.h"
#include "support/scale.h"
#include "support/sqlite_helpers.h"
#include "support/tamper.h"
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
    std::string stock;
    bool takes_longer = true;
    // Once more if the thread had no processor meanwhile.
    for (int i = 0; i < 3 && takes_longer; i++) {
      const auto start = Clock::now();
      stock = Play(scene, "unix");
      const auto middle = Clock::now();
      const std::string shim = Play(scene, "gc");
      takes_longer = Clock::now() - middle > (middle - start) + std::chrono::seconds(5);
      EXPECT_TRUE(stock == shim) << scene.name << ", " << scene.mode.name << "\n"
                                 << TranscriptDifference(stock, shim);
    }
    EXPECT_FALSE(takes_longer) << scene.name;
    outcomes_.insert(stock);
  }

  void CompareInAllModes(Scene scene) {
    for (const Mode& mode : kModes) {
      scene.mode = mode;
      scene.checkpoint = Below(random_, std::size(kCheckpoints));
      Compare(scene);
    }
  }

  // In one mode; more or less often, as the scale of the tests says.
  void CompareInSomeMode(Scene scene) {
    for (size_t i = Below(random_, 100); i < static_cast<size_t>(Scaled(100)); i += 100) {
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
  for (const size_t size :
       std::initializer_list<size_t>{0, 1, 31, 32, 33, 56, second - 1, second,
                                     image_.log.size() - 1, image_.log.size() + 5000}) {
    Bytes log = image_.log;
    log.resize(size, 0xa5);
    CompareLog("log of " + std::to_string(size) + " bytes", log);
  }
  for (const size_t size :
       std::initializer_list<size_t>{0, 1, 3, 47, 48, 96, 136, 4096, 32767, 32769, 100000}) {
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
  for (size_t at = 0; at < kLogHeaderBytes - 8; at += 4) {
    for (const uint32_t value : kAbsurdNumbers) {
      const std::string what = std::to_string(value) + " at " + std::to_string(at);
      Bytes log = image_.log;
      PutBig32(&log, at, value);
      CompareLog("log header with " + what, log);
      RepairLog(&log, /*salts=*/true);
      CompareLog("valid log header with " + what, log);
    }
  }
}

TEST_F(HostileFileTest, Frames) {
  const size_t frames = LogFrames(image_.log);
  const auto last = LogFrameAt(image_.log, frames - 1);
  for (const size_t field : {size_t{0}, kFrameDatabaseSizeAt}) {
    for (const uint32_t value : kAbsurdNumbers) {
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

TEST_F(HostileFileTest, Indexes) {
  for (size_t at = 0; at < kIndexHeadBytes; at += 4) {
    for (const uint32_t value : {0u, 1u, kMaxIndexFrames, UINT32_MAX}) {
      if (at == kIndexLastFrameAt && value > kMaxIndexFrames) continue;
      Bytes index = image_.index;
      PutNative32(&index, at, value);
      PutNative16(&index, kIndexPageSizeAt, kIndexPageSizes[at == 12 ? value % 2 : 2]);
      if (at < kIndexHeaderBytes) RepairIndex(&index);
      CompareIndex("wal-index with " + std::to_string(value) + " at " + std::to_string(at), index,
                   /*left_behind=*/false);
    }
  }
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
  EXPECT_GT(outcomes_.size(), static_cast<size_t>(std::min(cases, 300)) / 8);
}

}  // namespace
}  // namespace groupcommit::testing
