// Where the library cannot have a thread of its own: the program's pthread_create() comes before
// that of the C library.
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>

#include "support/barrier_test.h"

namespace {

std::atomic<bool> no_threads{false};

}  // namespace

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*start)(void*), void* argument) noexcept {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  return no_threads ? EAGAIN : create(thread, attributes, start, argument);
}

namespace groupcommit::testing {
namespace {

class NoThreadTest : public BarrierTest {
 protected:
  ~NoThreadTest() override { no_threads = false; }
};

TEST_F(NoThreadTest, ACommitThatIsLeftToItFailsAsAWhole) {
  Db db = OpenWithTable();
  for (const char* synchronous : {"NORMAL", "FULL"}) {
    db.ExecOk(std::string("PRAGMA synchronous=") + synchronous);
    db.ExecOk("PRAGMA groupcommit_policy=interval");
    no_threads = true;
    EXPECT_EQ(db.Exec("INSERT INTO t VALUES('lost')"), SQLITE_NOMEM);
    EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 1);
    // In the middle of a transaction.
    db.ExecOk("PRAGMA cache_size=2; BEGIN");
    int rc = SQLITE_OK;
    for (int i = 0; i < 50 && rc == SQLITE_OK; i++)
      rc = db.Exec("INSERT INTO t VALUES(zeroblob(9000))");
    EXPECT_EQ(rc, SQLITE_NOMEM);
    EXPECT_NE(sqlite3_get_autocommit(db.get()), 0);
    EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 1);
    // Under another policy nobody needs it.
    db.ExecOk("PRAGMA groupcommit_policy=auto");
    Insert(db);
    EXPECT_EQ(Flush(db), SQLITE_OK);
    EXPECT_EQ(RowsAfterPowerCut(), 2);
    db.ExecOk("DELETE FROM t WHERE x='x'");
    no_threads = false;
  }
  db.ExecOk(kSoon);
  Insert(db);
  EXPECT_EQ(Wait(db, CommitLsn(db), 30000), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

TEST_F(NoThreadTest, AWaitWithALimit) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Insert(db);
  no_threads = true;
  EXPECT_EQ(Wait(db, CommitLsn(db), 0), SQLITE_BUSY);
  EXPECT_EQ(Wait(db, CommitLsn(db), 30000), SQLITE_NOMEM);
  EXPECT_EQ(RowsAfterPowerCut(), 1);
  EXPECT_EQ(Wait(db, CommitLsn(db), -1), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
  Insert(db);
  no_threads = false;
  EXPECT_EQ(Wait(db, CommitLsn(db), 30000), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 3);
}

}  // namespace
}  // namespace groupcommit::testing
