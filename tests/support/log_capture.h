// What goes to sqlite3_log() in a test program that includes this header.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_LOG_CAPTURE_H_
#define GROUPCOMMIT_TESTS_SUPPORT_LOG_CAPTURE_H_

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <mutex>
#include <string>
#include <utility>

namespace groupcommit::testing {

struct LogEntry {
  int code = SQLITE_OK;
  std::string message;
};

class LogCapture {
 public:
  // The last one since the last call; its message is "" if there was none.
  static LogEntry Take() {
    std::lock_guard<std::mutex> lock(mutex_);
    ours_ = 0;
    return std::exchange(last_, {});
  }
  // How many there were of the library since then.
  static int Ours() {
    std::lock_guard<std::mutex> lock(mutex_);
    return ours_;
  }

 private:
  class Environment : public ::testing::Environment {
   public:
    // Before anything uses SQLite.
    void SetUp() override { ASSERT_EQ(sqlite3_config(SQLITE_CONFIG_LOG, Log, nullptr), SQLITE_OK); }
  };

  static void Log(void*, int code, const char* message) {
    std::lock_guard<std::mutex> lock(mutex_);
    last_ = {code, message};
    ours_ += last_.message.rfind("groupcommit: ", 0) == 0;
  }

  static inline std::mutex mutex_;
  static inline LogEntry last_;
  static inline int ours_ = 0;
  static inline ::testing::Environment* const environment_ =
      ::testing::AddGlobalTestEnvironment(new Environment);
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_LOG_CAPTURE_H_
