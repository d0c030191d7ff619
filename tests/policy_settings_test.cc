// The policy and the statistics as a user of SQL reaches them: URI parameters, pragmas, the table.
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "support/log_capture.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

class PolicySettingsTest : public ShimTest {
 protected:
  PolicySettingsTest() { LogCapture::Take(); }

  std::string Uri(const std::string& parameters, const std::string& file = "test.db") const {
    return "file:" + path(file) + "?" + parameters;
  }
  static std::string PolicyOf(Db& db, const std::string& schema = "main") {
    return db.Text("PRAGMA " + schema + ".groupcommit_policy");
  }

  // All that can be seen of the files from outside.
  std::map<std::string, std::string> Files() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
      struct stat info {};
      EXPECT_EQ(::stat(entry.path().c_str(), &info), 0);
      std::ifstream in(entry.path(), std::ios::binary);
      files[entry.path().filename().string()] =
          std::to_string(info.st_mtim.tv_sec) + "." + std::to_string(info.st_mtim.tv_nsec) + " " +
          std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    }
    return files;
  }

  // Opening with these parameters is misuse, the log names `fault`, and no file is touched.
  void ExpectRefused(const std::string& parameters, const std::string& fault,
                     const std::string& file = "test.db") {
    const auto before = Files();
    LogCapture::Take();
    Db db;
    EXPECT_EQ(db.Open(Uri(parameters, file), "gc"), SQLITE_MISUSE) << parameters;
    const LogEntry log = LogCapture::Take();
    EXPECT_EQ(log.code, SQLITE_MISUSE) << parameters;
    EXPECT_NE(log.message.find(fault), std::string::npos) << parameters << ": " << log.message;
    EXPECT_TRUE(Files() == before) << parameters;
  }
};

// ---- URI ----

TEST_F(PolicySettingsTest, UriParameters) {
  const struct {
    const char* parameters;
    const char* policy;
  } kGood[] = {
      {"", "auto"},
      {"flush_policy=auto", "auto"},
      {"flush_policy=on_each_flush", "on_each_flush"},
      {"flush_policy=ON_EACH_FLUSH", "on_each_flush"},
      {"flush_policy=group", "group(max_wait_us=1000,max_batch=64)"},
      {"flush_policy=Group&max_wait_us=500", "group(max_wait_us=500,max_batch=64)"},
      {"flush_policy=group&max_batch=7&max_wait_us=0", "group(max_wait_us=0,max_batch=7)"},
      {"max_wait_us=10000000", "group(max_wait_us=10000000,max_batch=64)"},
      {"max_batch=1000000", "group(max_wait_us=1000,max_batch=1000000)"},
      {"max_batch=%31%32&mode=rwc&unknown=9", "group(max_wait_us=1000,max_batch=12)"},
      {"max_batch=5&max_batch=x", "group(max_wait_us=1000,max_batch=5)"},
      {"FLUSH_POLICY=never&Max_Batch=x", "auto"},  // names that nobody knows
  };
  for (const auto& good : kGood) {
    Db db(Uri(good.parameters), "gc");
    EXPECT_EQ(PolicyOf(db), good.policy) << good.parameters;
  }
  // 0 counts as 1.
  Db db(Uri("max_batch=0"), "gc");
  db.ExecOk("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(x)");
  db.ExecOk("INSERT INTO t VALUES(1)");
  EXPECT_EQ(Stats(db).windows_expired, 0);
}

TEST_F(PolicySettingsTest, BadUriParameters) {
  const struct {
    const char* parameters;
    const char* fault;
  } kBad[] = {
      {"flush_policy=", "flush_policy"},
      {"flush_policy=never", "'never'"},
      {"flush_policy=auto%20", "flush_policy"},
      {"flush_policy=group(max_wait_us=5)", "flush_policy"},
      {"max_wait_us=", "max_wait_us"},
      {"max_wait_us=-1", "'-1'"},
      {"max_wait_us=%2B1", "'+1'"},
      {"max_wait_us=1.5", "'1.5'"},
      {"max_wait_us=1e3", "'1e3'"},
      {"max_wait_us=0x10", "'0x10'"},
      {"max_wait_us=%205", "' 5'"},
      {"max_wait_us=5ms", "'5ms'"},
      {"max_wait_us=soon", "'soon'"},
      {"max_wait_us=10000001", "10000000"},
      {"max_wait_us=4294967296", "10000000"},
      {"max_wait_us=99999999999999999999", "10000000"},
      {"max_batch=", "max_batch"},
      {"max_batch=-1", "'-1'"},
      {"max_batch=8,", "'8,'"},
      {"max_batch=1000001", "1000000"},
      {"max_batch=18446744073709551617", "1000000"},
      {"flush_policy=auto&max_wait_us=5", "max_wait_us"},
      {"flush_policy=on_each_flush&max_batch=5", "max_batch"},
      {"flush_policy=group&max_wait_us=5&max_batch=many", "'many'"},
  };
  for (const auto& bad : kBad) ExpectRefused(bad.parameters, bad.fault, "missing.db");
  {
    Db db = OpenWithTable();
    db.ExecOk("PRAGMA journal_mode=DELETE");
  }
  for (const auto& bad : kBad) ExpectRefused(bad.parameters, bad.fault);
}

// sqlite3_log() cuts a message off after some 200 bytes.
TEST_F(PolicySettingsTest, ALongPathDoesNotHideTheReason) {
  const std::string file = std::string(200, 'p') + ".db";
  ExpectRefused("max_batch=many", "'many'", file);
  Db first(Uri("max_batch=4", file), "gc");
  ExpectRefused("max_batch=5", "max_batch=5", file);
}

TEST_F(PolicySettingsTest, ABadUriInAttach) {
  Db db = OpenWithTable();
  const auto before = Files();
  LogCapture::Take();
  EXPECT_NE(db.Exec("ATTACH '" + Uri("max_batch=x", "other.db") + "' AS other"), SQLITE_OK);
  EXPECT_TRUE(Files() == before);
  db.ExecOk("INSERT INTO t VALUES('still open')");
  db.ExecOk("ATTACH '" + Uri("max_batch=5", "other.db") + "' AS other; CREATE TABLE other.u(x)");
  EXPECT_EQ(PolicyOf(db, "other"), "group(max_wait_us=1000,max_batch=5)");
  EXPECT_EQ(PolicyOf(db), "auto");
}

TEST_F(PolicySettingsTest, ConnectionsThatDisagreeByUri) {
  Db first = OpenWalUri(Uri("flush_policy=group&max_batch=4"));
  first.ExecOk("CREATE TABLE t(x)");
  ExpectRefused("flush_policy=auto", "group(max_wait_us=1000,max_batch=4)");
  ExpectRefused("flush_policy=on_each_flush", "on_each_flush");
  ExpectRefused("max_batch=5", "differs");
  ExpectRefused("max_wait_us=999&max_batch=4", "differs");

  // The first one is unaffected.
  EXPECT_EQ(Stats(first).connections, 1);
  EXPECT_EQ(PolicyOf(first), "group(max_wait_us=1000,max_batch=4)");
  first.ExecOk("PRAGMA groupcommit_policy='group(max_wait_us=0,max_batch=4)'");
  first.ExecOk("INSERT INTO t VALUES(1)");
  EXPECT_EQ(RowsAfterPowerCut(), 1);

  // Who says the same, or nothing, may join.
  Db same(Uri("max_batch=4"), "gc");
  Db silent(path(), "gc");
  EXPECT_EQ(same.Int("SELECT count(*) FROM t") + silent.Int("SELECT count(*) FROM t"), 2);
  EXPECT_EQ(Stats(first).connections, 3);
  // Another database is another matter.
  Db other(Uri("flush_policy=auto", "other.db"), "gc");
  EXPECT_EQ(PolicyOf(other), "auto");
}

TEST_F(PolicySettingsTest, TheFirstToNameAPolicyByUriSetsIt) {
  Db silent(path(), "gc");
  EXPECT_EQ(PolicyOf(silent), "auto");
  Db speaks(Uri("flush_policy=on_each_flush"), "gc");
  EXPECT_EQ(PolicyOf(silent), "on_each_flush");
  ExpectRefused("flush_policy=auto", "on_each_flush");
  // That one may be closed by now.
  speaks.Close();
  ExpectRefused("flush_policy=auto", "an earlier URI");
}

// COMMIT was to be durable when it returns, for those that are open.
TEST_F(PolicySettingsTest, IntervalByUriDoesNotComeToThoseThatAreOpen) {
  {
    Db silent = OpenWithTable();
    ExpectRefused("flush_policy=interval", "under auto");
    ExpectRefused("max_delay_us=5", "interval(max_delay_us=5)");
    EXPECT_EQ(PolicyOf(silent), "auto");
    const int64_t rows = RowsAfterPowerCut();
    silent.ExecOk("INSERT INTO t VALUES('durable')");
    EXPECT_EQ(RowsAfterPowerCut(), rows + 1);
    // The pragma comes first, whatever a URI says.
    silent.ExecOk("PRAGMA groupcommit_policy=on_each_flush");
    Db joins(Uri("flush_policy=interval"), "gc");
    EXPECT_EQ(PolicyOf(joins), "on_each_flush");
  }
  Db first(Uri("max_delay_us=5"), "gc");
  EXPECT_EQ(PolicyOf(first), "interval(max_delay_us=5)");
  Db second(Uri("max_delay_us=5"), "gc");
  EXPECT_EQ(PolicyOf(second), "interval(max_delay_us=5)");
}

// Nor by the VFS through which somebody else has it open already.
TEST_F(PolicySettingsTest, IntervalOfAnotherVfsDoesNotComeToThoseThatWait) {
  const groupcommit_policy interval = {GROUPCOMMIT_INTERVAL, 0, 0, 5'000};
  ASSERT_EQ(groupcommit_register("lazy", "store", 0, &interval), SQLITE_OK);
  {
    Db lazy(path(), "lazy");
    lazy.ExecOk("PRAGMA journal_mode=WAL");
    LogCapture::Take();
    Db safe;
    EXPECT_EQ(safe.Open(path(), "gc"), SQLITE_MISUSE);
    const LogEntry log = LogCapture::Take();
    EXPECT_NE(log.message.find("policy auto of this VFS would not hold"), std::string::npos)
        << log.message;
    lazy.ExecOk("PRAGMA groupcommit_policy='interval(max_delay_us=5000)'");  // which comes first
    Db told(path(), "gc");
    EXPECT_EQ(PolicyOf(told), "interval(max_delay_us=5000)");
  }
  EXPECT_EQ(groupcommit_unregister("lazy"), SQLITE_OK);
}

// The database is remembered, and what was said of its policy is not.
TEST_F(PolicySettingsTest, OfADatabaseThatWasClosedWithAHole) {
  Db db = OpenWalUri(Uri("flush_policy=on_each_flush"));
  db.ExecOk("CREATE TABLE t(x); PRAGMA groupcommit_policy=auto");
  sqlite3_db_config(db.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  storage_.FailSyncs(FileKind::kWal, 1, 100);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  db.Close();
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  ASSERT_EQ(db.Open(Uri("max_batch=4"), "gc"), SQLITE_OK);
  EXPECT_EQ(Stats(db).fenced, 1) << "it was not remembered";
  EXPECT_EQ(PolicyOf(db), "group(max_wait_us=1000,max_batch=4)");
  db.ExecOk("PRAGMA synchronous=FULL; INSERT INTO t VALUES('durable')");
  EXPECT_EQ(RowsAfterPowerCut(), db.Int("SELECT count(*) FROM t"));
}

// ---- Precedence ----

TEST_F(PolicySettingsTest, Precedence) {
  const groupcommit_policy registered = {GROUPCOMMIT_GROUP, 1, 1, 0};
  ASSERT_EQ(groupcommit_register("registered", "store", 0, &registered), SQLITE_OK);
  {
    Db db(path(), "registered");
    EXPECT_EQ(PolicyOf(db), "group(max_wait_us=1,max_batch=1)");
  }
  {
    Db db(Uri("max_wait_us=2&max_batch=2"), "registered");
    EXPECT_EQ(PolicyOf(db), "group(max_wait_us=2,max_batch=2)");
    Db silent(path(), "registered");
    EXPECT_EQ(PolicyOf(silent), "group(max_wait_us=2,max_batch=2)");

    // The pragma's holds for all connections, at once, and whatever URI comes later.
    EXPECT_EQ(silent.Text("PRAGMA groupcommit_policy='group(max_wait_us=3,max_batch=3)'"),
              "group(max_wait_us=3,max_batch=3)");
    EXPECT_EQ(PolicyOf(db), "group(max_wait_us=3,max_batch=3)");
    Db later(Uri("max_wait_us=2&max_batch=2"), "registered");
    EXPECT_EQ(PolicyOf(later), "group(max_wait_us=3,max_batch=3)");
  }
  {
    // Until the last connection closes.
    Db db(path(), "registered");
    EXPECT_EQ(PolicyOf(db), "group(max_wait_us=1,max_batch=1)");
    db.ExecOk("PRAGMA groupcommit_policy=auto");
    Db later(Uri("max_wait_us=2&max_batch=2"), "registered");
    EXPECT_EQ(PolicyOf(db), "auto");
  }
  EXPECT_EQ(groupcommit_unregister("registered"), SQLITE_OK);
}

// ---- Pragmas ----

TEST_F(PolicySettingsTest, PragmaErrors) {
  Db db = OpenWithTable();
  const struct {
    const char* value;
    const char* fault;
  } kBad[] = {
      {"nonsense", "'nonsense'"},
      {"''", "the policy must be"},
      {"'group(max_wait_us=x)'", "'x'"},
      {"'group(max_batch=-2)'", "'-2'"},
      {"'group(max_wait_us=10000001)'", "10000000"},
      {"'group(max_batch=1,max_batch=2)'", "twice"},
      {"'group(speed=9)'", "'speed=9'"},
      {"'group(max_batch=5'", "')'"},
      {"'auto(max_batch=5)'", "max_batch"},
      {"7", "'7'"},
  };
  for (const auto& bad : kBad) {
    EXPECT_EQ(db.Exec(std::string("PRAGMA groupcommit_policy=") + bad.value), SQLITE_ERROR)
        << bad.value;
    EXPECT_NE(db.Error().find(bad.fault), std::string::npos) << bad.value << ": " << db.Error();
    EXPECT_EQ(db.Error().find("groupcommit_policy: "), 0u) << db.Error();
    EXPECT_EQ(PolicyOf(db), "auto") << bad.value;
  }
  EXPECT_EQ(db.Exec("PRAGMA groupcommit_stats=1"), SQLITE_ERROR);
  EXPECT_EQ(db.Error(), "groupcommit_stats takes no value");
  EXPECT_EQ(db.Exec("PRAGMA groupcommit_flush=1"), SQLITE_ERROR);
  EXPECT_EQ(db.Error(), "groupcommit_flush takes no value");
  db.ExecOk("INSERT INTO t VALUES('goes on')");
}

// SQLite ignores pragmas that nobody knows: a commit would pass for one that was flushed.
TEST_F(PolicySettingsTest, AMisspelledPragmaIsAnError) {
  Db db = OpenWithTable();
  for (const char* name : {"groupcommit_flsh", "main.groupcommit_", "GROUPCOMMIT_POLICE=auto"}) {
    EXPECT_EQ(db.Exec(std::string("PRAGMA ") + name), SQLITE_ERROR) << name;
    EXPECT_NE(db.Error().find("groupcommit_flush"), std::string::npos) << db.Error();
  }
  db.ExecOk("PRAGMA groupcommitflush; PRAGMA group_commit");  // not ours
}

TEST_F(PolicySettingsTest, PragmasOfAttachedDatabases) {
  Db db = OpenWithTable();
  db.ExecOk("ATTACH '" + path("other.db") + "' AS other; ATTACH ':memory:' AS m");
  EXPECT_EQ(db.Text("PRAGMA other.groupcommit_policy=on_each_flush"), "on_each_flush");
  EXPECT_EQ(PolicyOf(db, "other"), "on_each_flush");
  EXPECT_EQ(PolicyOf(db), "auto");
  EXPECT_EQ(db.Exec("PRAGMA other.groupcommit_policy=never"), SQLITE_ERROR);
  EXPECT_NE(db.Text("PRAGMA other.groupcommit_stats").find("\"commits\":0"), std::string::npos);
  EXPECT_NE(db.Exec("PRAGMA nowhere.groupcommit_policy"), SQLITE_OK);
  // Not open through the shim: an unknown pragma, which SQLite ignores.
  db.ExecOk("PRAGMA m.groupcommit_policy=never");
  // Names of pragmas do not depend on case.
  EXPECT_EQ(db.Text("PRAGMA OTHER.GroupCommit_Policy"), "on_each_flush");
}

TEST_F(PolicySettingsTest, ThePragmaActsOnOtherConnections) {
  Db db = OpenWithTable();
  Db other = OpenWithTable();
  const int64_t deferred = Stats(db).deferred;
  other.ExecOk("PRAGMA groupcommit_policy=on_each_flush");
  db.ExecOk("INSERT INTO t VALUES(1)");
  EXPECT_EQ(Stats(db).deferred, deferred);
  other.ExecOk("PRAGMA groupcommit_policy=auto");
  db.ExecOk("INSERT INTO t VALUES(1)");
  EXPECT_EQ(Stats(db).deferred, deferred + 1);
}

// ---- Statistics ----

TEST_F(PolicySettingsTest, StatisticsAsJson) {
  Db db = OpenWithTable();
  for (int i = 0; i < 5; i++) db.ExecOk("INSERT INTO t VALUES(1)");
  const std::string json = "'" + db.Text("PRAGMA groupcommit_stats") + "'";
  EXPECT_EQ(db.Int("SELECT json_valid(" + json + ")"), 1) << json;
  EXPECT_EQ(db.Text("SELECT group_concat(key) FROM json_each(" + json + ")"),
            "connections,commits,deferred,syncs,failed_syncs,batch,windows_filled,windows_expired,"
            "reader_waits,pending,waiting,fenced,sync,commit_wait,lock_wait,reader_wait,"
            "lsn,durable_lsn,background_errors,overlapped_syncs");
  const auto extract = [&](const std::string& path_in_it) {
    return db.Int("SELECT json_extract(" + json + ",'" + path_in_it + "')");
  };
  const groupcommit_statistics stats = Stats(db);
  EXPECT_EQ(extract("$.connections"), 1);
  EXPECT_EQ(extract("$.commits"), stats.commits);
  EXPECT_EQ(extract("$.deferred"), stats.deferred);
  EXPECT_GE(extract("$.deferred"), 5);
  EXPECT_EQ(extract("$.syncs"), stats.syncs);
  EXPECT_EQ(extract("$.batch[0]"), stats.batch[0]);
  EXPECT_EQ(extract("$.pending"), 0);
  EXPECT_EQ(extract("$.fenced"), 0);
  EXPECT_EQ(extract("$.commit_wait.count"), stats.commit_wait.count);
  EXPECT_EQ(extract("$.sync.max_us"), stats.sync.max_us);
  EXPECT_EQ(db.Int("SELECT json_array_length(" + json + ",'$.batch')"), GROUPCOMMIT_BATCH_BUCKETS);
}

TEST_F(PolicySettingsTest, TheStatisticsTable) {
  Db plain(":memory:");
  EXPECT_EQ(plain.Exec("SELECT * FROM groupcommit_stats"), SQLITE_ERROR);
  EXPECT_EQ(groupcommit_stats_table(plain.get()), SQLITE_OK);
  EXPECT_EQ(plain.Int("SELECT count(*) FROM groupcommit_stats"), 0);
  EXPECT_EQ(plain.Text("SELECT group_concat(name) FROM pragma_table_info('groupcommit_stats')"
                       " WHERE name NOT LIKE '%\\_us' ESCAPE '\\'"),
            "path,policy,connections,commits,deferred,syncs,failed_syncs,batch,windows_filled,"
            "windows_expired,reader_waits,pending,waiting,fenced,lsn,durable_lsn,"
            "background_errors,overlapped_syncs");
  EXPECT_EQ(plain.Int("SELECT count(*) FROM pragma_table_info('groupcommit_stats')"
                      " WHERE name IN ('sync_p50_us','sync_p99_us','sync_max_us',"
                      "'commit_wait_p50_us','lock_wait_p99_us','reader_wait_max_us')"),
            6);
  {
    Db db = OpenWithTable();
    Db second = OpenWithTable();
    Db other = OpenWithTable("other.db");
    other.ExecOk("PRAGMA groupcommit_policy=on_each_flush");
    EXPECT_EQ(plain.Int("SELECT count(*) FROM groupcommit_stats"), 2);
    const std::string where = " FROM groupcommit_stats WHERE path='" + path() + "'";
    EXPECT_EQ(plain.Int("SELECT connections" + where), 2);
    EXPECT_EQ(plain.Int("SELECT commits" + where), Stats(db).commits);
    EXPECT_EQ(plain.Int("SELECT json_extract(batch,'$[0]')" + where), Stats(db).batch[0]);
    EXPECT_EQ(plain.Text("SELECT policy" + where), "auto");
    EXPECT_EQ(plain.Text("SELECT policy FROM groupcommit_stats ORDER BY path LIMIT 1"),
              "on_each_flush");
    EXPECT_EQ(plain.Exec("DELETE FROM groupcommit_stats"), SQLITE_ERROR) << "it is read-only";
    // From a connection that it tells of, within a transaction, joined with itself.
    EXPECT_EQ(groupcommit_stats_table(db.get()), SQLITE_OK);
    db.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES(1)");
    EXPECT_EQ(db.Int("SELECT count(*) FROM groupcommit_stats a, groupcommit_stats b"), 4);
    db.ExecOk("COMMIT");
  }
  EXPECT_EQ(plain.Int("SELECT count(*) FROM groupcommit_stats"), 0);
}

}  // namespace
}  // namespace groupcommit::testing
