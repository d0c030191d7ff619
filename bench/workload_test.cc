// Every engine leaves what it acknowledged in the database, whatever the mix, and the verification
// notices when something is missing, changed or too much.

#include "workload.h"

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <tuple>

#include "disk.h"
#include "groupcommit.h"
#include "sqlite_handle.h"

namespace groupcommit::bench {

static void PrintTo(Mix mix, std::ostream* out) { *out << NameOf(mix); }

namespace {

using ::testing::Combine;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

// Ends a run once it has made some commits, however long that takes.
constexpr int64_t kCommits = 50;

struct EngineUnderTest {
  const char* name;
  EngineFactory factory;
  const char* vfs;
};

void PrintTo(const EngineUnderTest& engine, std::ostream* out) { *out << engine.name; }

constexpr EngineUnderTest kEngines[] = {
    {"stock", NewConnectionEngine, ""},
    {"writer_queue", NewWriterQueueEngine, ""},
    {"shim", NewConnectionEngine, GROUPCOMMIT_VFS_NAME},
};

class WorkloadTest : public TestWithParam<std::tuple<Mix, EngineUnderTest>> {
 protected:
  static void SetUpTestSuite() { groupcommit_register(nullptr, nullptr, 0, nullptr); }
  static void TearDownTestSuite() { groupcommit_unregister(nullptr); }

  WorkloadResult Run() {
    std::atomic<bool> enough{false};
    WorkloadOptions options;
    options.engine = std::get<1>(GetParam()).factory;
    options.vfs = std::get<1>(GetParam()).vfs;
    options.mix = mix();
    options.path = path_;
    options.connections = 12;
    options.duration = std::chrono::minutes(5);
    options.cancel = &enough;
    options.on_progress = [&](const WorkloadProgress& so_far) {
      enough = so_far.commits >= kCommits;
    };
    return RunWorkload(options);
  }

  // What the verification says after `sql` has been at the database.
  std::string ProblemAfter(const WorkloadResult& result, const std::string& sql) {
    {
      const Connection db = Open(UriOf(path_), SQLITE_OPEN_READWRITE);
      Execute(db.get(), sql);
    }
    return VerifyDatabase(path_, result.acknowledged, mix()).problem;
  }

  Mix mix() const { return std::get<0>(GetParam()); }

  const TemporaryDirectory directory_{".", "workload-test-"};
  const std::string path_ = (directory_.path() / "test.db").string();
};

TEST_P(WorkloadTest, AcknowledgedTransactionsAreThere) {
  const WorkloadResult result = Run();
  EXPECT_EQ(result.error, "");
  EXPECT_GE(result.commits, kCommits);
  EXPECT_EQ(result.acknowledged.size(), static_cast<size_t>(WritersOf(mix(), 12)));
  const Verification verification = VerifyDatabase(path_, result.acknowledged, mix());
  EXPECT_EQ(verification.problem, "");
  EXPECT_EQ(verification.found, verification.acknowledged);
}

TEST_P(WorkloadTest, VerificationNoticesWhatIsWrong) {
  const WorkloadResult result = Run();
  ASSERT_EQ(VerifyDatabase(path_, result.acknowledged, mix()).problem, "");
  if (mix() == Mix::kHotRow) {
    EXPECT_NE(ProblemAfter(result, "UPDATE hot SET n = n - 1"), "");
    EXPECT_NE(ProblemAfter(result, "UPDATE hot SET n = n + 2"), "");
    return;
  }
  if (mix() == Mix::kTwoTables) {
    EXPECT_NE(ProblemAfter(result, "UPDATE totals SET n = n - 1 WHERE writer = 3"), "");
    EXPECT_EQ(ProblemAfter(result, "UPDATE totals SET n = n + 1 WHERE writer = 3"), "");
  }
  EXPECT_NE(ProblemAfter(result, "INSERT INTO t(writer, seq, payload) VALUES(12, 0, x'00')"), "");
  EXPECT_EQ(ProblemAfter(result, "DELETE FROM t WHERE writer = 12"), "");
  EXPECT_NE(ProblemAfter(result,
                         "UPDATE t SET payload = zeroblob(length(payload)) WHERE (writer, seq)"
                         " IN (SELECT writer, seq FROM t LIMIT 1)"),
            "");
  EXPECT_NE(ProblemAfter(result,
                         "DELETE FROM t WHERE (writer, seq)"
                         " IN (SELECT writer, seq FROM t LIMIT 1)"),
            "");
}

INSTANTIATE_TEST_SUITE_P(, WorkloadTest, Combine(ValuesIn(kAllMixes), ValuesIn(kEngines)),
                         [](const auto& test) {
                           return NameOf(std::get<0>(test.param)) + std::string("_") +
                                  std::get<1>(test.param).name;
                         });

}  // namespace
}  // namespace groupcommit::bench
