// An SQLite that is too old at run time: refused at once, with the reason. This program's own
// sqlite3_libversion_number() stands in for it.
#include "sqlite_version.h"

#include "support/log_capture.h"
#include "support/shim_test.h"

namespace {
int version = SQLITE_VERSION_NUMBER;
}

extern "C" int sqlite3_libversion_number() { return version; }

namespace groupcommit::testing {
namespace {

constexpr int kTooOld[] = {0, 3006000, 3034001, 3038005, 3038999};
constexpr int kNewEnough[] = {3039000, 3039001, 3040001, 3999000, 4000000};

class SqliteVersionTest : public ::testing::Test {
 protected:
  ~SqliteVersionTest() override { version = SQLITE_VERSION_NUMBER; }
};

TEST_F(SqliteVersionTest, Comparison) {
  for (const int old : kTooOld) EXPECT_NE(WhyTooOld(old), nullptr) << old;
  for (const int good : kNewEnough) EXPECT_EQ(WhyTooOld(good), nullptr) << good;
}

TEST_F(SqliteVersionTest, RegistrationIsRefused) {
  version = 3038999;
  for (const bool automatic : {false, true}) {
    LogCapture::Take();
    EXPECT_EQ(automatic ? groupcommit_extra_init(nullptr)
                        : groupcommit_register(nullptr, nullptr, 1, nullptr),
              SQLITE_ERROR);
    const LogEntry log = LogCapture::Take();
    EXPECT_EQ(log.code, SQLITE_ERROR);
    EXPECT_NE(log.message.find("3.39.0 or newer"), std::string::npos) << log.message;
    EXPECT_EQ(sqlite3_vfs_find("groupcommit"), nullptr);
    EXPECT_STREQ(sqlite3_vfs_find(nullptr)->zName, "unix");
  }
  version = 3039000;
  EXPECT_EQ(groupcommit_register(nullptr, nullptr, 1, nullptr), SQLITE_OK);
  EXPECT_EQ(groupcommit_unregister(nullptr), SQLITE_OK);
}

}  // namespace
}  // namespace groupcommit::testing
