// Base VFSes of every shape. (Other shims: shim_stack_test.cc)
#include <tuple>

#include "support/passthrough_fixture.h"
#include "support/plain_vfs.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

class VersionsTest : public PassthroughTest,
                     public ::testing::WithParamInterface<std::tuple<int, int>> {
 protected:
  VersionsTest() : PassthroughTest("unix", std::get<0>(GetParam())) {
    storage_.SetIoVersion(std::get<1>(GetParam()));
  }
};

TEST_P(VersionsTest, BehavesAsItsBase) { CompareWal(UseAll); }

TEST_P(VersionsTest, OffersWhatItsBaseOffers) {
  const sqlite3_vfs* shim = sqlite3_vfs_find("auto");
  const sqlite3_vfs* base = sqlite3_vfs_find("store");
  EXPECT_EQ(shim->iVersion, base->iVersion);
  EXPECT_EQ(shim->mxPathname, base->mxPathname);
  EXPECT_GT(shim->szOsFile, base->szOsFile);
  EXPECT_EQ(shim->xDlOpen == nullptr, base->xDlOpen == nullptr);
  EXPECT_EQ(shim->xGetLastError == nullptr, base->xGetLastError == nullptr);
  if (shim->iVersion >= 2) {
    EXPECT_EQ(shim->xCurrentTimeInt64 == nullptr, base->xCurrentTimeInt64 == nullptr);
  }
  if (shim->iVersion >= 3) {
    EXPECT_EQ(shim->xSetSystemCall == nullptr, base->xSetSystemCall == nullptr);
    EXPECT_EQ(shim->xNextSystemCall == nullptr, base->xNextSystemCall == nullptr);
  }
  TempDir dir;
  Db db(dir.File("test.db"), "auto");
  sqlite3_file* file = nullptr;
  sqlite3_file_control(db.get(), "main", SQLITE_FCNTL_FILE_POINTER, &file);
  EXPECT_EQ(file->pMethods->iVersion, std::get<1>(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(All, VersionsTest,
                         ::testing::Combine(::testing::Values(1, 2, 3), ::testing::Values(1, 2, 3)),
                         [](const auto& test) {
                           return "Vfs" + std::to_string(std::get<0>(test.param)) + "Io" +
                                  std::to_string(std::get<1>(test.param));
                         });

class UnixVariantTest : public PassthroughTest, public ::testing::WithParamInterface<const char*> {
 protected:
  UnixVariantTest() : PassthroughTest(GetParam()) {}
};

TEST_P(UnixVariantTest, BehavesAsItsBase) { CompareWal(UseAll); }

INSTANTIATE_TEST_SUITE_P(All, UnixVariantTest,
                         ::testing::Values("unix", "unix-excl", "unix-dotfile"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '-');
                           return name;
                         });

using BaseVfsTest = PassthroughTest;

// Version 3, and yet without shared memory.
TEST_F(BaseVfsTest, WithoutSharedMemory) {
  PlainVfs base("no_shm", "store", /*shared_memory=*/false);
  ASSERT_EQ(groupcommit_register("over_no_shm", "no_shm", 0, nullptr), SQLITE_OK);
  CompareVia("over_no_shm", UseAll, Calls::kSame, "no_shm");
  EXPECT_EQ(groupcommit_unregister("over_no_shm"), SQLITE_OK);

  ASSERT_EQ(groupcommit_register("over_none", "unix-none", 0, nullptr), SQLITE_OK);
  CompareVia("over_none", UseAll, Calls::kSame, "unix-none");
  EXPECT_EQ(groupcommit_unregister("over_none"), SQLITE_OK);
}

TEST_F(BaseVfsTest, AFileThatFailsToOpenHasNoMethods) {
  TempDir dir;
  const std::string path = dir.File("test.db");
  const char* name = sqlite3_create_filename(path.c_str(), (path + "-journal").c_str(),
                                             (path + "-wal").c_str(), 0, nullptr);
  storage_.SetFaultHook(
      [](const Call& call) { return call.op == Op::kOpen ? SQLITE_CANTOPEN_ISDIR : SQLITE_OK; });
  sqlite3_vfs* vfs = sqlite3_vfs_find("auto");
  const struct {
    const char* name;
    int flags;
  } kFiles[] = {{name, SQLITE_OPEN_MAIN_DB},
                {sqlite3_filename_journal(name), SQLITE_OPEN_MAIN_JOURNAL},
                {sqlite3_filename_wal(name), SQLITE_OPEN_WAL},
                {nullptr, SQLITE_OPEN_TEMP_DB | SQLITE_OPEN_DELETEONCLOSE}};
  for (const auto& file : kFiles) {
    std::vector<uint64_t> memory(static_cast<size_t>(vfs->szOsFile) / sizeof(uint64_t) + 1,
                                 0xa5a5a5a5a5a5a5a5u);
    auto* opened = reinterpret_cast<sqlite3_file*>(memory.data());
    int out_flags = 0;
    EXPECT_EQ(vfs->xOpen(vfs, file.name, opened,
                         file.flags | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &out_flags),
              SQLITE_CANTOPEN_ISDIR)
        << file.flags;
    EXPECT_EQ(opened->pMethods, nullptr) << file.flags;
  }
  storage_.SetFaultHook(nullptr);
  sqlite3_free_filename(name);
}

// What the shim asks on its own account may fail, too.
TEST_F(BaseVfsTest, ALogWhoseSizeCannotBeReadIsNotOpened) {
  TempDir dir;
  Db db(dir.File("test.db"), "auto");
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
  storage_.SetFaultHook([](const Call& call) {
    return call.op == Op::kFileSize && call.kind == FileKind::kWal ? SQLITE_IOERR_FSTAT : SQLITE_OK;
  });
  EXPECT_EQ(db.Exec("CREATE TABLE t(x)"), SQLITE_IOERR_FSTAT);
  storage_.SetFaultHook(nullptr);
  db.ExecOk("CREATE TABLE t(x); INSERT INTO t VALUES(1)");
}

TEST_F(BaseVfsTest, ADatabaseWhoseIdentityCannotBeReadIsTakenForTheSame) {
  TempDir dir;
  Db first(dir.File("test.db"), "auto");
  first.ExecOk("PRAGMA journal_mode=WAL; CREATE TABLE t(x)");
  storage_.SetFaultHook([](const Call& call) {
    return call.op == Op::kFileControl && call.flags == SQLITE_FCNTL_HAS_MOVED ? SQLITE_NOTFOUND
                                                                               : SQLITE_OK;
  });
  Db second(dir.File("test.db"), "auto");
  storage_.SetFaultHook(nullptr);
  groupcommit_statistics stats{};
  EXPECT_EQ(groupcommit_stats(second.get(), "main", &stats, sizeof(stats)), SQLITE_OK);
  EXPECT_EQ(stats.connections, 2);
}

// ---- Without the functions that load libraries ----

class BareVfsTest : public ::testing::Test {
 protected:
  BareVfsTest() : bare_(*sqlite3_vfs_find("unix")) {
    bare_.pNext = nullptr;
    bare_.zName = "bare";
    bare_.xDlOpen = nullptr;
    bare_.xDlError = nullptr;
    bare_.xDlSym = nullptr;
    bare_.xDlClose = nullptr;
    bare_.xGetLastError = nullptr;
    bare_.iVersion = 1;
    EXPECT_EQ(sqlite3_vfs_register(&bare_, 0), SQLITE_OK);
    EXPECT_EQ(groupcommit_register("over_bare", "bare", 0, nullptr), SQLITE_OK);
  }
  ~BareVfsTest() override {
    EXPECT_EQ(groupcommit_unregister("over_bare"), SQLITE_OK);
    EXPECT_EQ(sqlite3_vfs_unregister(&bare_), SQLITE_OK);
  }
  sqlite3_vfs bare_;
};

TEST_F(BareVfsTest, WhatTheBaseLacksTheShimLacks) {
  const sqlite3_vfs* shim = sqlite3_vfs_find("over_bare");
  EXPECT_EQ(shim->xDlOpen, nullptr);
  EXPECT_EQ(shim->xDlError, nullptr);
  EXPECT_EQ(shim->xDlSym, nullptr);
  EXPECT_EQ(shim->xDlClose, nullptr);
  EXPECT_EQ(shim->xGetLastError, nullptr);
  TempDir dir;
  Db db(dir.File("test.db"), "over_bare");
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
  db.ExecOk("CREATE TABLE t(x); INSERT INTO t VALUES(1)");
  EXPECT_EQ(db.Int("SELECT x FROM t"), 1);
}

// ---- That opens files in odd ways ----

// The VFS "copy": another one, but for how it opens files; and a shim over it, "over_copy".
class CopiedVfs {
 protected:
  CopiedVfs(const char* base, decltype(sqlite3_vfs::xOpen) open, int version = 3)
      : vfs_(*(base_ = sqlite3_vfs_find(base))) {
    vfs_.pNext = nullptr;
    vfs_.zName = "copy";
    vfs_.iVersion = version;
    vfs_.xOpen = open;
    EXPECT_EQ(sqlite3_vfs_register(&vfs_, 0), SQLITE_OK);
    EXPECT_EQ(groupcommit_register("over_copy", "copy", 0, nullptr), SQLITE_OK);
  }
  ~CopiedVfs() {
    EXPECT_EQ(groupcommit_unregister("over_copy"), SQLITE_OK);
    EXPECT_EQ(sqlite3_vfs_unregister(&vfs_), SQLITE_OK);
  }

  static inline sqlite3_vfs* base_ = nullptr;  // of the only one

 private:
  sqlite3_vfs vfs_;
};

// Over the storage: opens logs for reading only, or fails although the file has methods by then.
class OddVfs : public CopiedVfs {
 public:
  enum class Open { kLogsReadOnly, kFails };
  explicit OddVfs(Open open) : CopiedVfs("store", OpenFile) { open_ = open; }

 private:
  static int OpenFile(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags,
                      int* out_flags) {
    const int rc = base_->xOpen(base_, name, file, flags, out_flags);
    if (rc != SQLITE_OK) return rc;
    if (open_ == Open::kFails) return SQLITE_CANTOPEN_CONVPATH;
    if ((flags & SQLITE_OPEN_WAL) != 0) {
      *out_flags = (*out_flags & ~SQLITE_OPEN_READWRITE) | SQLITE_OPEN_READONLY;
    }
    return SQLITE_OK;
  }

  static inline Open open_;
};

// The storage looks whether a file is left open.
TEST_F(BaseVfsTest, AFileThatFailsToOpenIsClosedAsSqliteDoes) {
  OddVfs odd(OddVfs::Open::kFails);
  TempDir dir;
  Db db;
  EXPECT_EQ(db.Open(dir.File("test.db"), "over_copy"), SQLITE_CANTOPEN);
}

// Nobody can sync it, nor need anybody who only reads what others have committed.
TEST_F(BaseVfsTest, ALogThatIsReadOnly) {
  OddVfs odd(OddVfs::Open::kLogsReadOnly);
  TempDir dir;
  Db stranger(dir.File("test.db"), "store");
  stranger.ExecOk("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; CREATE TABLE t(x)");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  Db db(dir.File("test.db"), "over_copy");
  EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 0);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES(1)"), SQLITE_READONLY);
}

// ---- With files that have other functions ----

// Over SQLite's own. `edit` changes the functions of each file.
class EditedVfs : public CopiedVfs {
 public:
  using Edit = void (*)(sqlite3_io_methods*);
  explicit EditedVfs(Edit edit, int version = 3) : CopiedVfs("unix", Open, version) {
    edit_ = edit;
  }
  // Those of a database file, as they were.
  static const sqlite3_io_methods& unedited() { return unedited_; }

 private:
  static int Open(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* out_flags) {
    const int rc = base_->xOpen(base_, name, file, flags, out_flags);
    if (rc == SQLITE_OK) {
      const bool is_main = (flags & SQLITE_OPEN_MAIN_DB) != 0;
      if (is_main) unedited_ = *file->pMethods;
      sqlite3_io_methods& methods = is_main ? main_ : others_;
      methods = *file->pMethods;
      edit_(&methods);
      file->pMethods = &methods;
    }
    return rc;
  }

  static inline Edit edit_;
  static inline sqlite3_io_methods unedited_;
  static inline sqlite3_io_methods main_;
  static inline sqlite3_io_methods others_;
};

// os.c: sqlite3OsSectorSize()
TEST(EditedVfsTest, WithoutASectorSize) {
  EditedVfs vfs([](sqlite3_io_methods* methods) { methods->xSectorSize = nullptr; });
  TempDir dir;
  Db db(dir.File("test.db"), "over_copy");
  db.ExecOk("CREATE TABLE t(x)");
  sqlite3_file* file = nullptr;
  EXPECT_EQ(sqlite3_file_control(db.get(), "main", SQLITE_FCNTL_FILE_POINTER, &file), SQLITE_OK);
  EXPECT_EQ(file->pMethods->xSectorSize(file), 4096);
}

// pager.c: sqlite3PagerWalSupported()
TEST(EditedVfsTest, OfTheSecondVersionWithoutSharedMemory) {
  EditedVfs vfs([](sqlite3_io_methods* methods) {
    methods->iVersion = 2;
    methods->xShmMap = nullptr;
    methods->xShmLock = nullptr;
    methods->xShmBarrier = nullptr;
    methods->xShmUnmap = nullptr;
  });
  TempDir dir;
  Db db(dir.File("test.db"), "over_copy");
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "delete");
  db.ExecOk("CREATE TABLE t(x); INSERT INTO t VALUES(1)");
}

// That passes for no shim.
TEST(EditedVfsTest, ThatSaysYesToWhateverItIsAsked) {
  EditedVfs vfs([](sqlite3_io_methods* methods) {
    methods->xFileControl = [](sqlite3_file* file, int op, void* arg) {
      const int rc = EditedVfs::unedited().xFileControl(file, op, arg);
      return op == SQLITE_FCNTL_PRAGMA ? rc : SQLITE_OK;
    };
  });
  TempDir dir;
  Db db(dir.File("test.db"), "over_copy");
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
  db.ExecOk("PRAGMA synchronous=FULL; CREATE TABLE t(x); INSERT INTO t VALUES(1)");
  groupcommit_statistics stats{};
  EXPECT_EQ(groupcommit_stats(db.get(), "main", &stats, sizeof(stats)), SQLITE_OK);
  EXPECT_EQ(stats.deferred, 1);
}

// Of a later version than this library knows. It may have functions that we could not forward:
// SQLite must not look for them in our tables.
TEST(EditedVfsTest, OfALaterVersionTheShimOffersWhatItKnows) {
  constexpr int kLater = 7;
  EditedVfs vfs([](sqlite3_io_methods* methods) { methods->iVersion = kLater; }, kLater);
  EXPECT_EQ(sqlite3_vfs_find("over_copy")->iVersion, 3);
  TempDir dir;
  Db db(dir.File("test.db"), "over_copy");
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
  db.ExecOk("PRAGMA synchronous=FULL; CREATE TABLE t(x); INSERT INTO t VALUES(1)");
  for (const int pointer : {SQLITE_FCNTL_FILE_POINTER, SQLITE_FCNTL_JOURNAL_POINTER}) {
    sqlite3_file* file = nullptr;
    EXPECT_EQ(sqlite3_file_control(db.get(), "main", pointer, &file), SQLITE_OK);
    EXPECT_EQ(file->pMethods->iVersion, 3);
  }
}

}  // namespace
}  // namespace groupcommit::testing
