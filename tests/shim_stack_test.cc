// Other shims below and above ours, and ours over itself.
#include <future>
#include <string>
#include <vector>

#include "support/passthrough_fixture.h"
#include "support/patience.h"
#include "support/plain_vfs.h"

namespace groupcommit::testing {
namespace {

std::string VfsName(const Db& db) {
  char* name = nullptr;
  EXPECT_EQ(sqlite3_file_control(db.get(), "main", SQLITE_FCNTL_VFSNAME, &name), SQLITE_OK);
  const std::string text = name != nullptr ? name : "";
  sqlite3_free(name);
  return text;
}

// Of a database that is opened through `vfs`.
std::string NameOf(const char* vfs) {
  TempDir dir;
  return VfsName(Db(dir.File("test.db"), vfs));
}

class StackTest : public PassthroughTest {
 protected:
  // Commits from several threads at once, each of which has to survive a power cut.
  void CommitAtOnce(const char* vfs) {
    TempDir dir;
    std::vector<Db> dbs;
    for (int i = 0; i < 4; i++) {
      dbs.emplace_back(dir.File("test.db"), vfs);
      EXPECT_EQ(dbs.back().Text("PRAGMA journal_mode=WAL"), "wal");
      dbs.back().ExecOk("PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS t(x)");
    }
    std::vector<std::future<void>> writers;
    for (Db& db : dbs) {
      writers.push_back(std::async(std::launch::async, [&db] {
        for (int i = 0; i < 50; i++) db.ExecOk("INSERT INTO t VALUES(1)");
      }));
    }
    for (auto& writer : writers) writer.get();
    storage_.CutInto(dir.File("cut"));
    Db cut(dir.File("cut/test.db"));
    EXPECT_EQ(cut.Int("SELECT count(*) FROM t"), 200);
    EXPECT_EQ(cut.Text("PRAGMA integrity_check"), "ok");
    groupcommit_statistics stats{};
    EXPECT_EQ(groupcommit_stats(dbs[0].get(), "main", &stats, sizeof(stats)), SQLITE_OK);
    EXPECT_GE(stats.deferred, 200);
    EXPECT_EQ(stats.pending, 0);
  }

  // What is left of a flush that comes while another connection publishes its commit.
  void FlushInTheMiddleOfACommit(const char* vfs) {
    TempDir dir;
    Db first(dir.File("test.db"), vfs);
    first.ExecOk("PRAGMA journal_mode=WAL; CREATE TABLE t(x); PRAGMA synchronous=NORMAL");
    Db second(dir.File("test.db"), vfs);
    second.ExecOk("PRAGMA synchronous=NORMAL; INSERT INTO t VALUES(1)");
    Db idle(dir.File("test.db"), vfs);
    int64_t rows = -1;
    storage_.SetObserver([&](const Call& call) {
      constexpr int kUnlock = SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE;
      if (call.op != Op::kShmLock || call.offset != 0 || call.flags != kUnlock || rows != -1)
        return;
      rows = 0;
      EXPECT_EQ(groupcommit_flush(idle.get(), "main"), SQLITE_OK);
      storage_.CutInto(dir.File("cut"));
      rows = Db(dir.File("cut/test.db")).Int("SELECT count(*) FROM t");
    });
    first.ExecOk("INSERT INTO t VALUES(2)");
    storage_.SetObserver(nullptr);
    EXPECT_GE(rows, 1) << "what was committed before the flush is lost";
  }
};

TEST_F(StackTest, OverAShimOfItsOwnKind) {
  const groupcommit_policy each_flush{};
  for (const char* base : {"each", "auto"}) {
    ASSERT_EQ(groupcommit_register("upper_each", base, 0, &each_flush), SQLITE_OK);
    ASSERT_EQ(groupcommit_register("upper_auto", base, 0, nullptr), SQLITE_OK);
    CompareVia("upper_each", UseAll, Calls::kSame);
    CompareVia("upper_auto", UseAll, Calls::kSameButLater);
    CommitAtOnce("upper_auto");
    EXPECT_EQ(NameOf("upper_auto"), "groupcommit/unix");
    EXPECT_EQ(groupcommit_unregister("upper_each"), SQLITE_OK);
    EXPECT_EQ(groupcommit_unregister("upper_auto"), SQLITE_OK);
  }
}

// Whose sync may go through the log of a connection that is in the middle of a commit.
TEST_F(StackTest, AFlushOverAShimOfItsOwnKindIsOne) {
  ASSERT_EQ(groupcommit_register("upper", "auto", 0, nullptr), SQLITE_OK);
  FlushInTheMiddleOfACommit("upper");
  EXPECT_EQ(groupcommit_unregister("upper"), SQLITE_OK);
}

// It cannot know when it is registered what lies beneath the other one.
TEST_F(StackTest, OverAShimOfItsOwnKindByWayOfAnother) {
  PlainVfs middle("middle", "auto");
  ASSERT_EQ(groupcommit_register("upper", "middle", 0, nullptr), SQLITE_OK);
  CompareVia("upper", UseAll, Calls::kSameButLater);
  CommitAtOnce("upper");
  FlushInTheMiddleOfACommit("upper");
  {
    TempDir dir;
    Db db(dir.File("test.db"), "upper");
    EXPECT_EQ(VfsName(db), "plain/groupcommit/unix");
    EXPECT_EQ(db.Text("PRAGMA groupcommit_policy"), "auto");
    EXPECT_EQ(groupcommit_unregister("upper"), SQLITE_BUSY);
  }
  EXPECT_EQ(groupcommit_unregister("upper"), SQLITE_OK);
}

TEST_F(StackTest, UnderAnotherShim) {
  PlainVfs upper_each("upper_each", "each");
  PlainVfs upper_auto("upper_auto", "auto");
  CompareVia("upper_each", UseAll, Calls::kSame);
  CompareVia("upper_auto", UseAll, Calls::kSameButLater);
  CommitAtOnce("upper_auto");
  TempDir dir;
  Db db(dir.File("test.db"), "upper_auto");
  EXPECT_EQ(VfsName(db), "plain/groupcommit/unix");
  EXPECT_EQ(db.Text("PRAGMA groupcommit_policy"), "auto");
}

// Which log is whose cannot be told then: such a connection is as one that does not use the shim.
TEST_F(StackTest, UnderOneThatMakesNames) {
  PlainVfs makes_names("makes_names", "auto");
  makes_names.SetMakesNames();
  CompareVia("makes_names", UseAll, Calls::kSame);
  TempDir dir;
  Db ours(dir.File("test.db"), "auto");
  ours.ExecOk("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(x)");
  Db theirs(dir.File("test.db"), "makes_names");
  theirs.ExecOk("PRAGMA synchronous=FULL; SELECT * FROM t");
  const auto rows_of_cut = [&] {
    storage_.CutInto(dir.File("cut"));
    return Db(dir.File("cut/test.db")).Int("SELECT count(*) FROM t");
  };
  // On top of a commit that is not durable yet.
  storage_.HoldSyncs(FileKind::kWal);
  std::future<int> below =
      std::async(std::launch::async, [&] { return ours.Exec("INSERT INTO t VALUES(1)"); });
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  storage_.StopHolding();
  std::future<int> on_top =
      std::async(std::launch::async, [&] { return theirs.Exec("INSERT INTO t VALUES(2)"); });
  EXPECT_EQ(on_top.wait_for(kHangs), std::future_status::ready) << "it waits for ours";
  EXPECT_EQ(rows_of_cut(), 2);
  storage_.OpenGate();
  EXPECT_EQ(on_top.get(), SQLITE_OK);
  EXPECT_EQ(below.get(), SQLITE_OK);
  EXPECT_EQ(groupcommit_flush(theirs.get(), nullptr), SQLITE_OK);
  ours.ExecOk("INSERT INTO t VALUES(3)");
  EXPECT_EQ(theirs.Text("PRAGMA wal_checkpoint(TRUNCATE)"), "0");
  EXPECT_EQ(rows_of_cut(), 3);
}

TEST_F(StackTest, OverAnotherShim) {
  PlainVfs lower("lower", "store");
  ASSERT_EQ(groupcommit_register("upper", "lower", 0, nullptr), SQLITE_OK);
  CompareVia("upper", UseAll, Calls::kSameButLater);
  CommitAtOnce("upper");
  EXPECT_EQ(NameOf("upper"), "groupcommit/plain/unix");
  EXPECT_EQ(groupcommit_unregister("upper"), SQLITE_OK);
}

}  // namespace
}  // namespace groupcommit::testing
