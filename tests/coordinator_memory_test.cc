// The coordinator where there is no memory for one more thread that waits: it syncs by itself.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#include "support/coordinator_fixture.h"

namespace {

// The next allocation of this thread fails.
thread_local bool next_fails = false;

}  // namespace

// Not inlined: GCC would take free() for the wrong way to release what operator new returned.
#define NOT_INLINED __attribute__((noinline))
NOT_INLINED void* operator new(size_t size) {
  void* memory = std::exchange(next_fails, false) ? nullptr : std::malloc(size != 0 ? size : 1);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
NOT_INLINED void operator delete(void* memory) noexcept { std::free(memory); }
NOT_INLINED void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace groupcommit::testing {
namespace {

constexpr int kError = 1034;

// A log that is told of every loss.
class ToldLog final : public Coordinator::Log {
 public:
  explicit ToldLog(FakeLog* log) : log_(log) {}
  int Sync(Lsn from, Lsn through) override { return log_->Sync(from, through); }
  uint64_t SeesFailuresAfter() const override { return 0; }

 private:
  FakeLog* const log_;
};

class CoordinatorMemoryTest : public CoordinatorFixture {
 protected:
  ~CoordinatorMemoryTest() override {
    log_.ReleaseAll();
    calls_.clear();  // before what they use
  }

  // A sync is under way for `first_`, which does not cover `second_`, and another one of the thread
  // that waits for that, and has no memory to wait in line.
  void Start() {
    log_.HoldSyncs();
    first_ = Commit();
    calls_.emplace_back([this] { return coordinator_.WaitDurable(first_, &told_); });
    ASSERT_TRUE(log_.AwaitCalls(1));
    second_ = Commit();
    calls_.emplace_back([this] {
      next_fails = true;
      const int error = coordinator_.WaitDurable(second_, &told_);
      EXPECT_FALSE(next_fails) << "it needed no memory";
      return error;
    });
    ASSERT_TRUE(log_.AwaitCalls(2));
  }

  ToldLog told_{&log_};
  Lsn first_ = 0;
  Lsn second_ = 0;
};

TEST_F(CoordinatorMemoryTest, ItsOwnSyncMakesItsCommitDurable) {
  Start();
  log_.Finish(1);
  EXPECT_EQ(calls_[1].Result(), 0);
  EXPECT_TRUE(log_.Survives(second_));
  log_.Finish(0);
  EXPECT_EQ(calls_[0].Result(), 0);
}

TEST_F(CoordinatorMemoryTest, ItsOwnSyncFails) {
  Start();
  log_.Finish(1, kError);
  EXPECT_EQ(calls_[1].Result(), kError);
  log_.Finish(0);
  EXPECT_EQ(calls_[0].Result(), kError);
}

// Who is told of an error takes its commit back, which must not be durable.
TEST_F(CoordinatorMemoryTest, ItsOwnSyncFailsWhenAnotherOneHasMadeTheCommitDurable) {
  Start();
  calls_.emplace_back([this] { return coordinator_.SyncNow(&told_, coordinator_.failures()); });
  ASSERT_TRUE(log_.AwaitCalls(3));
  log_.Finish(2);
  EXPECT_EQ(calls_[2].Result(), 0);
  log_.Finish(1, kError);
  EXPECT_EQ(calls_[1].Result(), 0);
  EXPECT_TRUE(log_.Survives(second_));
  EXPECT_EQ(coordinator_.failure(), kError);
  log_.Finish(0);
  EXPECT_EQ(calls_[0].Result(), 0);
}

}  // namespace
}  // namespace groupcommit::testing
