#include "support/processes.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <thread>

#ifdef __linux__
#include <sys/prctl.h>
#endif

namespace groupcommit::testing {
namespace {

constexpr unsigned kChildSeconds = 900;

}  // namespace

pid_t StartChild(const std::function<void()>& work) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child != 0) return child;
#ifdef __linux__
  // The alarm does not reach a child that is stopped.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
  alarm(kChildSeconds);
  work();
  std::fflush(nullptr);
  _exit(::testing::Test::HasFailure() ? 1 : 0);
}

bool IsRunning(pid_t child) {
  siginfo_t ended{};
  return waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         ended.si_pid == 0;
}

void ExpectSuccess(pid_t child) {
  ASSERT_GT(child, 0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
}

void Kill(pid_t child) {
  ASSERT_GT(child, 0);
  kill(child, SIGKILL);
  ExpectKilled(child);
}

void ExpectKilled(pid_t child) {
  ASSERT_GT(child, 0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "status " << status;
}

void Stop(pid_t child) {
  ASSERT_GT(child, 0);
  kill(child, SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
  ASSERT_TRUE(WIFSTOPPED(status)) << "status " << status;
}

void Continue(pid_t child) { kill(child, SIGCONT); }

void TryLocksEachMillisecond(const Db& db) {
  const auto handler = [](void*, int tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return static_cast<int>(tries < 60'000);
  };
  sqlite3_busy_handler(db.get(), handler, nullptr);
}

}  // namespace groupcommit::testing
