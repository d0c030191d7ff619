// The counters: quantiles within their bound, an exact maximum, batch buckets, and the JSON.
#include "statistics.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace groupcommit::testing {
namespace {

constexpr int64_t kNanosPerMicro = 1000;

// `reported` is what became of the exact value: at most 1/16 more, and rounded to a microsecond.
void ExpectWithinBound(int64_t reported_us, int64_t exact_nanos) {
  const int64_t reported = reported_us * kNanosPerMicro;
  EXPECT_GE(reported, exact_nanos - kNanosPerMicro) << "too low";
  EXPECT_LE(reported, exact_nanos + exact_nanos / 16 + kNanosPerMicro) << "too high";
}

void ExpectSummary(std::vector<int64_t> nanos) {
  auto histogram = std::make_unique<LatencyHistogram>();
  for (int64_t value : nanos) histogram->Record(value);
  std::sort(nanos.begin(), nanos.end());
  const auto quantile = [&](size_t percent) {
    return nanos[(nanos.size() * percent + 99) / 100 - 1];
  };
  const groupcommit_latency summary = histogram->Summary();
  EXPECT_EQ(summary.count, static_cast<int64_t>(nanos.size()));
  ExpectWithinBound(summary.p50_us, quantile(50));
  ExpectWithinBound(summary.p99_us, quantile(99));
  EXPECT_LE(std::abs(summary.max_us * kNanosPerMicro - nanos.back()), kNanosPerMicro);
  EXPECT_LE(summary.p50_us, summary.p99_us);
  EXPECT_LE(summary.p99_us, summary.max_us);
}

TEST(LatencyHistogram, IsEmptyAtFirst) {
  const groupcommit_latency summary = LatencyHistogram().Summary();
  EXPECT_EQ(summary.count, 0);
  EXPECT_EQ(summary.p50_us, 0);
  EXPECT_EQ(summary.p99_us, 0);
  EXPECT_EQ(summary.max_us, 0);
}

TEST(LatencyHistogram, OneValueOfAnySize) {
  for (int bits = 0; bits < 40; bits++) {
    const int64_t power = int64_t{1} << bits;
    for (int64_t value : {power - 1, power, power + 1, power + power / 2, power + power / 16}) {
      SCOPED_TRACE(value);
      ExpectSummary({value});
      ExpectSummary({value, (int64_t{1} << 40) - 1, value});  // the maximum does not cap it
    }
  }
}

TEST(LatencyHistogram, QuantilesAreOfTheRightRank) {
  std::vector<int64_t> nanos;
  for (int64_t i = 1; i <= 100; i++) nanos.push_back(i * i * 100'000);
  ExpectSummary(nanos);
  ExpectSummary({10'000'000, 20'000'000});
  ExpectSummary({10'000'000, 20'000'000, 30'000'000});
  // 99 of 100 are fast, then 98 of 100.
  std::vector<int64_t> mostly_fast(100, 5'000'000);
  mostly_fast[7] = 900'000'000;
  ExpectSummary(mostly_fast);
  mostly_fast[8] = 900'000'000;
  ExpectSummary(mostly_fast);
}

TEST(LatencyHistogram, QuantilesOfRandomValues) {
  std::mt19937_64 random(20);
  for (int round = 0; round < 200; round++) {
    SCOPED_TRACE(round);
    std::vector<int64_t> nanos;
    for (uint64_t n = 1 + random() % 500; n > 0; n--) {
      nanos.push_back(static_cast<int64_t>(random() % (uint64_t{1} << (random() % 41))));
    }
    ExpectSummary(nanos);
  }
}

TEST(LatencyHistogram, TheMaximumIsExactWhereverItLies) {
  for (int64_t micros : {int64_t{1}, int64_t{999}, int64_t{1'234'567}, int64_t{1'099'511'628},
                         int64_t{3'600'000'000'000}}) {
    auto histogram = std::make_unique<LatencyHistogram>();
    histogram->Record(micros * kNanosPerMicro);
    histogram->Record(0);
    EXPECT_EQ(histogram->Summary().max_us, micros);
  }
}

TEST(LatencyHistogram, TheMaximumIsRoundedToAMicrosecond) {
  for (const int64_t half : {-1, 0}) {
    auto histogram = std::make_unique<LatencyHistogram>();
    histogram->Record(7 * kNanosPerMicro + kNanosPerMicro / 2 + half);
    EXPECT_EQ(histogram->Summary().max_us, half == 0 ? 8 : 7);
  }
}

TEST(LatencyHistogram, ValuesOutOfRangeAreCounted) {
  auto histogram = std::make_unique<LatencyHistogram>();
  histogram->Record(-1);
  histogram->Record(std::numeric_limits<int64_t>::min());
  EXPECT_EQ(histogram->Summary().count, 2);
  EXPECT_EQ(histogram->Summary().max_us, 0);
  histogram->Record(5 * kNanosPerMicro);
  EXPECT_EQ(histogram->Summary().p50_us, 0) << "a negative time counts as none";
  histogram->Record(std::numeric_limits<int64_t>::max());
  histogram->Record(int64_t{1} << 40);
  histogram->Record(int64_t{1} << 40);
  EXPECT_EQ(histogram->Summary().count, 6);
  EXPECT_GE(histogram->Summary().p99_us, ((int64_t{1} << 40) - 1) / kNanosPerMicro)
      << "all from 2^40 ns share the last bucket";
  EXPECT_GT(histogram->Summary().max_us, int64_t{1} << 40) << "and the longest does not overflow";
}

TEST(LatencyHistogram, ThreadsRecordAtTheSameTime) {
  constexpr int64_t kValues = 5'000;
  auto histogram = std::make_unique<LatencyHistogram>();
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < 4; t++) {
    threads.emplace_back([&histogram, t] {
      for (int64_t i = 1; i <= kValues; i++) {
        histogram->Record((t * kValues + i) * kNanosPerMicro);
        if (i % 1000 != 0) continue;
        EXPECT_GE(histogram->Summary().count, i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(histogram->Summary().count, 4 * kValues);
  EXPECT_EQ(histogram->Summary().max_us, 4 * kValues);
  ExpectWithinBound(histogram->Summary().p50_us, 2 * kValues * kNanosPerMicro);
}

TEST(Statistics, BatchBuckets) {
  struct Range {
    uint64_t first;
    uint64_t last;
  };
  const std::vector<Range> buckets{{1, 1},  {2, 2},   {3, 4},   {5, 8},
                                   {9, 16}, {17, 32}, {33, 64}, {65, 10'000}};
  ASSERT_EQ(buckets.size(), size_t{GROUPCOMMIT_BATCH_BUCKETS});
  auto stats = std::make_unique<Statistics>();
  stats->RecordBatch(0);
  for (const Range& range : buckets) {
    for (uint64_t commits = range.first; commits <= range.last; commits++) {
      stats->RecordBatch(commits);
    }
  }
  stats->RecordBatch(std::numeric_limits<uint64_t>::max());
  groupcommit_statistics out{};
  stats->CopyTo(&out);
  for (size_t i = 0; i < buckets.size(); i++) {
    uint64_t expected = buckets[i].last - buckets[i].first + 1;
    if (i + 1 == buckets.size()) expected++;
    EXPECT_EQ(out.batch[i], static_cast<int64_t>(expected)) << i;
  }
}

TEST(Statistics, CopiesEachCounterToItsPlace) {
  auto stats = std::make_unique<Statistics>();
  stats->commits.Add(1);
  stats->deferred.Add(2);
  stats->syncs.Add(3);
  stats->failed_syncs.Add(4);
  stats->overlapped_syncs.Add(12);
  stats->windows_filled.Add(5);
  stats->windows_expired.Add(6);
  stats->reader_waits.Add();
  stats->reader_waits.Add(6);
  stats->sync.Record(8 * kNanosPerMicro);
  stats->commit_wait.Record(9 * kNanosPerMicro);
  stats->lock_wait.Record(10 * kNanosPerMicro);
  stats->reader_wait.Record(11 * kNanosPerMicro);
  groupcommit_statistics out{};
  out.connections = 21;
  out.pending = 22;
  out.fenced = 23;
  stats->CopyTo(&out);
  EXPECT_EQ(out.commits, 1);
  EXPECT_EQ(out.deferred, 2);
  EXPECT_EQ(out.syncs, 3);
  EXPECT_EQ(out.failed_syncs, 4);
  EXPECT_EQ(out.overlapped_syncs, 12);
  EXPECT_EQ(out.windows_filled, 5);
  EXPECT_EQ(out.windows_expired, 6);
  EXPECT_EQ(out.reader_waits, 7);
  EXPECT_EQ(out.sync.max_us, 8);
  EXPECT_EQ(out.commit_wait.max_us, 9);
  EXPECT_EQ(out.lock_wait.max_us, 10);
  EXPECT_EQ(out.reader_wait.max_us, 11);
  EXPECT_EQ(out.connections, 21) << "known to others";
  EXPECT_EQ(out.pending, 22);
  EXPECT_EQ(out.fenced, 23);
}

// SQLite's JSON functions read it.
class JsonReader {
 public:
  explicit JsonReader(std::string json) : json_(std::move(json)) {
    EXPECT_EQ(sqlite3_open(":memory:", &db_), SQLITE_OK);
  }
  ~JsonReader() { sqlite3_close(db_); }
  JsonReader(const JsonReader&) = delete;
  JsonReader& operator=(const JsonReader&) = delete;

  // The first column of the first row; -1 if there is none.
  int64_t Ask(const std::string& sql) {
    sqlite3_stmt* statement = nullptr;
    EXPECT_EQ(sqlite3_prepare_v2(db_, sql.c_str(), -1, &statement, nullptr), SQLITE_OK) << sql;
    sqlite3_bind_text(statement, 1, json_.c_str(), -1, SQLITE_TRANSIENT);
    int64_t answer = -1;
    if (sqlite3_step(statement) == SQLITE_ROW &&
        sqlite3_column_type(statement, 0) == SQLITE_INTEGER) {
      answer = sqlite3_column_int64(statement, 0);
    }
    sqlite3_finalize(statement);
    return answer;
  }
  int64_t Member(const std::string& path) {
    return Ask("SELECT json_extract(?1, '$." + path + "')");
  }

 private:
  const std::string json_;
  sqlite3* db_ = nullptr;
};

TEST(Statistics, JsonHasEveryMember) {
  groupcommit_statistics stats{};
  std::vector<std::pair<std::string, sqlite3_int64*>> members{
      {"connections", &stats.connections},
      {"commits", &stats.commits},
      {"deferred", &stats.deferred},
      {"syncs", &stats.syncs},
      {"failed_syncs", &stats.failed_syncs},
      {"windows_filled", &stats.windows_filled},
      {"pending", &stats.pending},
      {"windows_expired", &stats.windows_expired},
      {"waiting", &stats.waiting},
      {"fenced", &stats.fenced},
      {"reader_waits", &stats.reader_waits},
      {"lsn", &stats.lsn},
      {"durable_lsn", &stats.durable_lsn},
      {"background_errors", &stats.background_errors},
      {"overlapped_syncs", &stats.overlapped_syncs}};
  for (int i = 0; i < GROUPCOMMIT_BATCH_BUCKETS; i++) {
    members.emplace_back("batch[" + std::to_string(i) + "]", &stats.batch[i]);
  }
  const std::vector<std::pair<std::string, groupcommit_latency*>> latencies{
      {"sync", &stats.sync},
      {"commit_wait", &stats.commit_wait},
      {"lock_wait", &stats.lock_wait},
      {"reader_wait", &stats.reader_wait}};
  for (const auto& [name, latency] : latencies) {
    members.emplace_back(name + ".count", &latency->count);
    members.emplace_back(name + ".p50_us", &latency->p50_us);
    members.emplace_back(name + ".p99_us", &latency->p99_us);
    members.emplace_back(name + ".max_us", &latency->max_us);
  }
  EXPECT_EQ(members.size() * sizeof(sqlite3_int64), sizeof(stats)) << "a member is missing here";

  constexpr int64_t kBase = std::numeric_limits<int64_t>::max() - 1000;
  int64_t value = kBase;
  for (const auto& [name, member] : members) *member = value++;
  JsonReader json(StatisticsToJson(stats));
  ASSERT_EQ(json.Ask("SELECT json_valid(?1)"), 1) << StatisticsToJson(stats);
  EXPECT_EQ(json.Ask("SELECT json_type(?1)='object'"), 1);
  EXPECT_EQ(json.Ask("SELECT count(*) FROM json_tree(?1) WHERE atom IS NOT NULL"),
            static_cast<int64_t>(members.size()));
  value = kBase;
  for (const auto& [name, member] : members) EXPECT_EQ(json.Member(name), value++) << name;
}

TEST(Statistics, JsonOfNothing) {
  JsonReader json(StatisticsToJson(groupcommit_statistics{}));
  ASSERT_EQ(json.Ask("SELECT json_valid(?1)"), 1);
  EXPECT_EQ(json.Ask("SELECT total(atom)=0 FROM json_tree(?1)"), 1);
}

}  // namespace
}  // namespace groupcommit::testing
