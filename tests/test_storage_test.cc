// The test storage by itself: one file, plain calls.  The storage under SQLite is
// in test_storage_sqlite_test.cc.
#include "support/test_storage.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/sqlite_helpers.h"

namespace groupcommit::testing {
namespace {

// A main database file opened straight through a VFS.
class RawFile {
 public:
  RawFile(const std::string& vfs_name, const std::string& path)
      : name_(sqlite3_create_filename(path.c_str(), "", "", 0, nullptr)) {
    sqlite3_vfs* vfs = sqlite3_vfs_find(vfs_name.c_str());
    memory_ = std::make_unique<uint64_t[]>(static_cast<size_t>(vfs->szOsFile) / 8 + 1);
    open_result_ =
        vfs->xOpen(vfs, name_, get(),
                   SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
  }
  ~RawFile() {
    if (get()->pMethods != nullptr) get()->pMethods->xClose(get());
    sqlite3_free_filename(name_);
  }
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;

  sqlite3_file* get() const { return reinterpret_cast<sqlite3_file*>(memory_.get()); }
  const sqlite3_io_methods* operator->() const { return get()->pMethods; }
  int open_result() const { return open_result_; }

  int Write(int64_t offset, const std::string& text) {
    return (*this)->xWrite(get(), text.data(), static_cast<int>(text.size()), offset);
  }
  int Sync() { return (*this)->xSync(get(), SQLITE_SYNC_NORMAL); }
  std::string Live() {
    sqlite3_int64 size = 0;
    EXPECT_EQ((*this)->xFileSize(get(), &size), SQLITE_OK);
    std::string text(static_cast<size_t>(size), '?');
    EXPECT_EQ((*this)->xRead(get(), text.data(), static_cast<int>(size), 0), SQLITE_OK);
    return text;
  }

 private:
  sqlite3_filename name_;
  std::unique_ptr<uint64_t[]> memory_;
  int open_result_;
};

class TestStorageTest : public ::testing::Test {
 protected:
  std::string Durable() { return Durable(path_); }
  std::string Durable(const std::string& path) {
    const auto images = storage_.DurableImages();
    const auto it = images.find(path);
    return it == images.end() ? "no file" : std::string(it->second.begin(), it->second.end());
  }

  TempDir dir_;
  TestStorage storage_{"test_storage"};
  const std::string path_ = dir_.File("file");
};

TEST_F(TestStorageTest, OnlySyncedBytesSurviveACut) {
  RawFile file("test_storage", path_);
  EXPECT_EQ(Durable(), "") << "creation is durable at once";
  ASSERT_EQ(file.Write(0, "synced"), SQLITE_OK);
  EXPECT_EQ(Durable(), "");
  ASSERT_EQ(file.Sync(), SQLITE_OK);
  ASSERT_EQ(file.Write(6, "not"), SQLITE_OK);
  EXPECT_EQ(Durable(), "synced");
  EXPECT_EQ(file.Live(), "syncednot");
  EXPECT_EQ(storage_.UnsyncedChanges(FileKind::kMainDb), 1u);
}

TEST_F(TestStorageTest, CutWritesTheImagesIntoADirectory) {
  RawFile file("test_storage", path_);
  ASSERT_EQ(file.Write(0, "synced"), SQLITE_OK);
  ASSERT_EQ(file.Sync(), SQLITE_OK);
  ASSERT_EQ(file.Write(6, "not"), SQLITE_OK);
  const std::string cut = dir_.File("cut");
  for (auto [mode, expected] :
       {std::pair{CutMode::kKeepAll, "syncednot"}, std::pair{CutMode::kDropUnsynced, "synced"}}) {
    storage_.CutInto(cut, mode);
    std::ifstream in(cut + "/file");
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), expected);
    std::ofstream(cut + "/file-shm") << "left over";
  }
  storage_.CutInto(cut);
  EXPECT_FALSE(std::filesystem::exists(cut + "/file-shm")) << "a cut starts in an empty directory";
}

TEST_F(TestStorageTest, ContentFromBeforeTheFirstOpenIsDurable) {
  std::ofstream(path_) << "old";
  RawFile file("test_storage", path_);
  EXPECT_EQ(Durable(), "old");
}

TEST_F(TestStorageTest, AnotherProcessMayCutAFileThatIsJustBeingOpened) {
  std::ofstream(path_) << "more than is left";
  TestStorage above("above", "test_storage");
  bool is_cut = false;
  storage_.SetObserver([&](const Call& call) {
    if (call.op != Op::kRead || std::exchange(is_cut, true)) return;
    std::filesystem::resize_file(path_, 4);
  });
  {
    RawFile file("above", path_);
    EXPECT_EQ(file.open_result(), SQLITE_OK);
  }
  storage_.SetObserver(nullptr);
  EXPECT_TRUE(is_cut);
  const Bytes durable = above.DurableImages()[path_];
  EXPECT_EQ(std::string(durable.begin(), durable.end()), "more");
}

TEST_F(TestStorageTest, WhatWasNotSyncedIsNotDurableAfterAReopen) {
  { EXPECT_EQ(RawFile("test_storage", path_).Write(0, "unsynced"), SQLITE_OK); }
  RawFile file("test_storage", path_);
  EXPECT_EQ(file.Live(), "unsynced");
  EXPECT_EQ(Durable(), "");
  ASSERT_EQ(file.Sync(), SQLITE_OK) << "a sync through any handle covers it";
  EXPECT_EQ(Durable(), "unsynced");
}

TEST_F(TestStorageTest, ForgottenFilesAreReadAgain) {
  { RawFile file("test_storage", path_); }
  std::ofstream(path_) << "by others";
  { EXPECT_EQ(RawFile("test_storage", path_).Live(), "by others"); }
  EXPECT_EQ(Durable(), "");
  storage_.ForgetClosedFiles();
  RawFile file("test_storage", path_);
  EXPECT_EQ(Durable(), "by others");
  storage_.ForgetClosedFiles();
  EXPECT_EQ(Durable(), "by others") << "it is open";
}

TEST_F(TestStorageTest, DeletionIsDurableAtOnce) {
  {
    RawFile file("test_storage", path_);
    ASSERT_EQ(file.Write(0, "x"), SQLITE_OK);
    ASSERT_EQ(file.Sync(), SQLITE_OK);
  }
  sqlite3_vfs* vfs = sqlite3_vfs_find("test_storage");
  ASSERT_EQ(vfs->xDelete(vfs, path_.c_str(), 0), SQLITE_OK);
  EXPECT_EQ(Durable(), "no file");
  RawFile file("test_storage", path_);
  EXPECT_EQ(Durable(), "");
}

TEST_F(TestStorageTest, TruncationNeedsASync) {
  RawFile file("test_storage", path_);
  ASSERT_EQ(file.Write(0, "abcdef"), SQLITE_OK);
  ASSERT_EQ(file.Sync(), SQLITE_OK);
  ASSERT_EQ(file->xTruncate(file.get(), 3), SQLITE_OK);
  EXPECT_EQ(Durable(), "abcdef");
  ASSERT_EQ(file.Sync(), SQLITE_OK);
  EXPECT_EQ(Durable(), "abc");
}

TEST_F(TestStorageTest, AWriteDuringASyncIsNotCoveredByIt) {
  RawFile file("test_storage", path_);
  RawFile other("test_storage", path_);
  ASSERT_EQ(file.Write(0, "a"), SQLITE_OK);
  storage_.HoldSyncs(FileKind::kMainDb);
  std::thread first([&] { EXPECT_EQ(file.Sync(), SQLITE_OK); });
  EXPECT_TRUE(storage_.WaitForHeldSyncs(1));
  EXPECT_EQ(other.Write(1, "b"), SQLITE_OK);
  std::thread second([&] { EXPECT_EQ(other.Sync(), SQLITE_OK); });
  EXPECT_TRUE(storage_.WaitForHeldSyncs(2));
  EXPECT_EQ(file.Write(2, "c"), SQLITE_OK);
  EXPECT_EQ(Durable(), "");

  EXPECT_EQ(storage_.ReleaseSyncs(1), 1);
  first.join();
  EXPECT_EQ(Durable(), "a");
  EXPECT_EQ(storage_.HeldSyncs(), 1);
  storage_.OpenGate();
  second.join();
  EXPECT_EQ(Durable(), "ab");
  EXPECT_EQ(file.Sync(), SQLITE_OK) << "the gate is open";
  EXPECT_EQ(Durable(), "abc");
  EXPECT_EQ(storage_.ReleaseSyncs(1), 0);
}

TEST_F(TestStorageTest, OfTwoOverlappingSyncsOneMayFail) {
  RawFile file("test_storage", path_);
  RawFile other("test_storage", path_);
  ASSERT_EQ(file.Write(0, "a"), SQLITE_OK);
  storage_.HoldSyncs(FileKind::kMainDb);
  std::thread failing([&] { EXPECT_EQ(file.Sync(), SQLITE_IOERR_FSYNC); });
  EXPECT_TRUE(storage_.WaitForHeldSyncs(1));
  EXPECT_EQ(other.Write(1, "b"), SQLITE_OK);
  std::thread succeeding([&] { EXPECT_EQ(other.Sync(), SQLITE_OK); });
  EXPECT_TRUE(storage_.WaitForHeldSyncs(2));
  EXPECT_EQ(storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC), 1);
  failing.join();
  EXPECT_EQ(storage_.ReleaseSyncs(1), 1);
  succeeding.join();
  EXPECT_EQ(Durable(), std::string("\0b", 2));
  storage_.OpenGate();
}

TEST_F(TestStorageTest, AFailedSyncLosesItsWritesForGood) {
  RawFile file("test_storage", path_);
  storage_.FailSyncs(FileKind::kMainDb, 1, 1);
  ASSERT_EQ(file.Write(0, "lost"), SQLITE_OK);
  EXPECT_EQ(file.Sync(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(file.Sync(), SQLITE_OK) << "the pages count as clean";
  EXPECT_EQ(Durable(), "");
  EXPECT_EQ(file.Live(), "lost");
  ASSERT_EQ(file.Write(0, "back"), SQLITE_OK);
  ASSERT_EQ(file.Sync(), SQLITE_OK);
  EXPECT_EQ(Durable(), "back");
}

TEST_F(TestStorageTest, OrAFailedSyncKeepsThemPending) {
  RawFile file("test_storage", path_);
  storage_.SetFailedSyncEnd(SyncEnd::kPending);
  storage_.FailSyncs(FileKind::kMainDb, 1, 1, SQLITE_IOERR);
  ASSERT_EQ(file.Write(0, "kept"), SQLITE_OK);
  EXPECT_EQ(file.Sync(), SQLITE_IOERR);
  EXPECT_EQ(Durable(), "");
  EXPECT_EQ(file.Sync(), SQLITE_OK);
  EXPECT_EQ(Durable(), "kept");
}

TEST_F(TestStorageTest, FailSyncsCountsSyncsOfItsKind) {
  RawFile file("test_storage", path_);
  storage_.FailSyncs(FileKind::kWal, 1, 100);
  storage_.FailSyncs(FileKind::kMainDb, 2, 2);
  EXPECT_EQ(file.Sync(), SQLITE_OK);
  EXPECT_EQ(file.Sync(), SQLITE_IOERR_FSYNC);
  storage_.ResetCounters();
  EXPECT_EQ(file.Sync(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(file.Sync(), SQLITE_OK);
  EXPECT_EQ(storage_.Counters(FileKind::kMainDb).syncs, 2);
  EXPECT_EQ(storage_.Counters(FileKind::kMainDb).failed_syncs, 1);
}

TEST_F(TestStorageTest, EachOpenHandleIsToldOfAnErrorOnce) {
  RawFile file("test_storage", path_);
  RawFile other("test_storage", path_);
  storage_.SetErrorPerHandle(true);
  storage_.FailSyncs(FileKind::kMainDb, 1, 1);
  EXPECT_EQ(file.Sync(), SQLITE_IOERR_FSYNC);
  RawFile later("test_storage", path_);
  ASSERT_EQ(other.Write(0, "x"), SQLITE_OK);
  EXPECT_EQ(other.Sync(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Durable(), "") << "it has written them, and no more";
  EXPECT_EQ(file.Sync(), SQLITE_OK);
  EXPECT_EQ(Durable(), "x");
  EXPECT_EQ(other.Sync(), SQLITE_OK);
  EXPECT_EQ(later.Sync(), SQLITE_OK);
}

TEST_F(TestStorageTest, TheFaultHookFailsAnyCall) {
  Op failing = Op::kOpen;
  storage_.SetFaultHook(
      [&failing](const Call& call) { return call.op == failing ? SQLITE_IOERR : SQLITE_OK; });
  {
    RawFile unopened("test_storage", path_);
    EXPECT_EQ(unopened.open_result(), SQLITE_IOERR);
    EXPECT_EQ(unopened.get()->pMethods, nullptr);
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  failing = Op::kClose;  // is not asked about
  RawFile file("test_storage", path_);
  ASSERT_EQ(file.open_result(), SQLITE_OK);
  failing = Op::kWrite;
  EXPECT_EQ(file.Write(0, "abc"), SQLITE_IOERR);
  EXPECT_EQ(file.Live(), "");
  storage_.SetShortWriteBytes(2);
  EXPECT_EQ(file.Write(0, "abc"), SQLITE_IOERR);
  EXPECT_EQ(file.Live(), "ab");
  failing = Op::kSync;
  EXPECT_EQ(file.Sync(), SQLITE_IOERR);
  failing = Op::kTruncate;
  EXPECT_EQ(file->xTruncate(file.get(), 0), SQLITE_IOERR);
  EXPECT_EQ(file.Live(), "ab");
  char byte = 0;
  failing = Op::kRead;
  EXPECT_EQ(file->xRead(file.get(), &byte, 1, 0), SQLITE_IOERR);
  volatile void* region = nullptr;
  failing = Op::kShmMap;
  EXPECT_EQ(file->xShmMap(file.get(), 0, 32768, 1, &region), SQLITE_IOERR);
  storage_.SetFaultHook(nullptr);
  ASSERT_EQ(file->xShmMap(file.get(), 0, 32768, 1, &region), SQLITE_OK);
  storage_.SetFaultHook([](const Call& call) {
    return call.op == Op::kShmLock && call.offset == 0 ? SQLITE_IOERR_SHMLOCK : SQLITE_OK;
  });
  const int lock = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
  EXPECT_EQ(file->xShmLock(file.get(), 0, 1, lock), SQLITE_IOERR_SHMLOCK);
  EXPECT_EQ(file->xShmLock(file.get(), 1, 1, lock), SQLITE_OK);
  storage_.SetFaultHook(nullptr);
  EXPECT_EQ(file->xShmLock(file.get(), 0, 1, lock), SQLITE_OK) << "it was not taken";
  EXPECT_EQ(file->xShmUnmap(file.get(), 1), SQLITE_OK);
  ASSERT_EQ(file.Sync(), SQLITE_OK);
  EXPECT_EQ(Durable(), "") << "the failed sync lost the short write";
}

TEST_F(TestStorageTest, TheObserverSeesCallsAndMayUseTheStorage) {
  std::vector<std::string> calls;
  std::string durable_in_sync;
  storage_.SetObserver([&](const Call& call) {
    calls.push_back(std::string(OpName(call.op)) + " " + std::to_string(call.offset) + " " +
                    std::to_string(call.amount));
    EXPECT_EQ(call.path, path_);
    EXPECT_EQ(call.kind, FileKind::kMainDb);
    if (call.op == Op::kSync) durable_in_sync = Durable();
  });
  {
    RawFile file("test_storage", path_);
    ASSERT_EQ(file.Write(4, "abc"), SQLITE_OK);
    ASSERT_EQ(file.Sync(), SQLITE_OK);
  }
  EXPECT_EQ(calls,
            (std::vector<std::string>{"xOpen 0 0", "xWrite 4 3", "xSync 0 0", "xClose 0 0"}));
  EXPECT_EQ(durable_in_sync, "");
  storage_.SetObserver(nullptr);
  RawFile file("test_storage", path_);
  EXPECT_EQ(calls.size(), 4u);
}

TEST_F(TestStorageTest, CountsByKind) {
  RawFile file("test_storage", path_);
  ASSERT_EQ(file.Write(0, "abc"), SQLITE_OK);
  ASSERT_EQ(file.Write(0, "de"), SQLITE_OK);
  ASSERT_EQ(file.Sync(), SQLITE_OK);
  EXPECT_EQ(storage_.Counters(FileKind::kMainDb).writes, 2);
  EXPECT_EQ(storage_.Counters(FileKind::kMainDb).bytes_written, 5);
  EXPECT_EQ(storage_.Counters(FileKind::kMainDb).syncs, 1);
  EXPECT_EQ(storage_.Counters(FileKind::kWal).writes, 0);
  storage_.ResetCounters();
  EXPECT_EQ(storage_.Counters(FileKind::kMainDb).writes, 0);
}

TEST_F(TestStorageTest, PresentsLowerVersionsWithoutTheirMethods) {
  for (int version : {1, 2, 3}) {
    storage_.SetIoVersion(version);
    RawFile file("test_storage", path_);
    EXPECT_EQ(file->iVersion, version);
    EXPECT_EQ(file->xShmMap != nullptr, version >= 2);
    EXPECT_EQ(file->xFetch != nullptr, version >= 3);
    storage_.SetVfsVersion(version);
    sqlite3_vfs* vfs = sqlite3_vfs_find("test_storage");
    EXPECT_EQ(vfs->iVersion, version);
    EXPECT_EQ(vfs->xCurrentTimeInt64 != nullptr, version >= 2);
    EXPECT_EQ(vfs->xSetSystemCall != nullptr, version >= 3);
  }
}

TEST_F(TestStorageTest, CanDenyPowersafeOverwrite) {
  RawFile file("test_storage", path_);
  EXPECT_NE(file->xDeviceCharacteristics(file.get()) & SQLITE_IOCAP_POWERSAFE_OVERWRITE, 0);
  storage_.SetPowersafeOverwrite(false);
  EXPECT_EQ(file->xDeviceCharacteristics(file.get()) & SQLITE_IOCAP_POWERSAFE_OVERWRITE, 0);
}

}  // namespace
}  // namespace groupcommit::testing
