// Several leaders at a time, and which of their syncs wait for which.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>

#include "coordinator.h"
#include "support/coordinator_fixture.h"
#include "sync_overlap.h"

namespace groupcommit::testing {
namespace {

constexpr int kError = 1034;

// A handle of its own on the log, which sees the failures of syncs that begin after it was opened.
class OwnLog final : public Coordinator::Log {
 public:
  OwnLog(FakeLog* log, const Coordinator& coordinator)
      : log_(log), sees_after_(coordinator.SyncsBegun()) {}

  int Sync(Lsn from, Lsn through) override { return log_->Sync(from, through); }
  uint64_t SeesFailuresAfter() const override { return sees_after_; }

 private:
  FakeLog* const log_;
  const uint64_t sees_after_;
};

class CoordinatorLeadersTest : public CoordinatorFixture {
 protected:
  CoordinatorLeadersTest() {
    many_.SetPolicy(FlushPolicy::Auto());
    log_.HoldSyncs();
  }
  ~CoordinatorLeadersTest() override {
    log_.ReleaseAll();
    clock_.RunFree();
    calls_.clear();  // before what they use
  }

  Lsn Commit() {
    log_.Write();
    return many_.Append(many_.failures());
  }
  BackgroundCall& StartWait(Lsn lsn, Coordinator::Log* log) {
    return calls_.emplace_back([this, lsn, log] {
      const int error = many_.WaitDurable(lsn, log);
      if (error == 0) {
        EXPECT_TRUE(log_.Survives(lsn)) << lsn << " was acknowledged and is not durable";
      }
      return error;
    });
  }
  BackgroundCall& StartWait(Lsn lsn) { return StartWait(lsn, &own_); }
  BackgroundCall& StartSyncNow(Coordinator::Log* log) {
    return calls_.emplace_back([this, log] { return many_.SyncNow(log, many_.failures()); });
  }
  // Leads the sync number `call` for a commit of its own.
  BackgroundCall& StartLeader(size_t call) {
    BackgroundCall& leader = StartWait(Commit());
    EXPECT_TRUE(log_.AwaitCalls(call + 1));
    return leader;
  }
  void Recover() {
    EXPECT_TRUE(log_.RollBack(many_.durable())) << "the durable tail is not durable";
    EXPECT_TRUE(many_.Resume());
  }

  Coordinator many_{&clock_, &stats_, SyncOverlap::Always()};
  OwnLog own_{&log_, many_};
};

TEST_F(CoordinatorLeadersTest, AsManySyncsAreUnderWayAsMayBe) {
  for (size_t i = 0; i < SyncOverlap::kMost; i++) StartLeader(i);
  BackgroundCall& last = StartWait(Commit());
  last.AwaitParked();
  EXPECT_EQ(log_.calls(), size_t{SyncOverlap::kMost});
  EXPECT_EQ(stats_.overlapped_syncs.Get(), SyncOverlap::kMost - 1);
  // Whichever ends: there is room for one more.
  log_.Finish(1);
  EXPECT_EQ(calls_[1].Result(), 0);
  ASSERT_TRUE(log_.AwaitCalls(SyncOverlap::kMost + 1));
  EXPECT_EQ(log_.call(SyncOverlap::kMost).thread, last.thread_id());
  EXPECT_EQ(log_.call(SyncOverlap::kMost).through, 5u);
  log_.ReleaseAll();
  for (BackgroundCall& call : calls_) EXPECT_EQ(call.Result(), 0);
  EXPECT_EQ(log_.calls(), size_t{SyncOverlap::kMost + 1});
}

TEST_F(CoordinatorLeadersTest, OneAtATimeUnderOtherPolicies) {
  for (const FlushPolicy& policy :
       {FlushPolicy{}, FlushPolicy::Group(0, 1), FlushPolicy::Interval(1000)}) {
    many_.SetPolicy(policy);
    const size_t calls = log_.calls();
    BackgroundCall& leader = StartLeader(calls);
    BackgroundCall& follower = StartWait(Commit());
    follower.AwaitParked();
    EXPECT_EQ(log_.calls(), calls + 1);
    log_.Finish(calls);
    EXPECT_EQ(leader.Result(), 0);
    ASSERT_TRUE(log_.AwaitCalls(calls + 2));
    log_.Finish(calls + 1);
    EXPECT_EQ(follower.Result(), 0);
  }
}

TEST_F(CoordinatorLeadersTest, ANewPolicyLetsThoseUnderWayEnd) {
  for (size_t i = 0; i < 3; i++) StartLeader(i);
  many_.SetPolicy(FlushPolicy::Group(0, 1));
  BackgroundCall& last = StartWait(Commit());
  last.AwaitParked();
  for (size_t i = 0; i < 3; i++) {
    EXPECT_EQ(log_.calls(), 3u);
    log_.Finish(i);
    EXPECT_EQ(calls_[i].Result(), 0);
  }
  ASSERT_TRUE(log_.AwaitCalls(4));
  log_.Finish(3);
  EXPECT_EQ(last.Result(), 0);
}

// Who came while no more than two syncs were under way need not begin a third.
TEST_F(CoordinatorLeadersTest, WhoIsCoveredByASyncUnderWayFollows) {
  BackgroundCall& older = StartLeader(0);
  BackgroundCall& newer = StartLeader(1);
  BackgroundCall& reader = StartWait(1);
  reader.AwaitParked();
  EXPECT_EQ(log_.calls(), 2u);
  log_.Finish(1);
  EXPECT_EQ(newer.Result(), 0);
  EXPECT_EQ(reader.Result(), 0) << "the newer sync began after its commit was written, too";
  EXPECT_EQ(many_.durable(), 2u);
  EXPECT_FALSE(older.returned());
  log_.Finish(0);
  EXPECT_EQ(older.Result(), 0);
  EXPECT_EQ(many_.durable(), 2u);
  EXPECT_EQ(log_.calls(), 2u);
}

TEST_F(CoordinatorLeadersTest, SoDoesWhoIsCoveredBySyncNow) {
  const Lsn covered = Commit();
  BackgroundCall& sync_now = StartSyncNow(&own_);
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& follower = StartWait(covered);
  follower.AwaitParked();
  EXPECT_EQ(log_.calls(), 1u);
  BackgroundCall& leader = StartLeader(1);
  log_.Finish(0);
  EXPECT_EQ(sync_now.Result(), 0);
  EXPECT_EQ(follower.Result(), 0);
  EXPECT_FALSE(leader.returned());
}

TEST_F(CoordinatorLeadersTest, WhoIsNotCoveredIsAppointedPastThoseWhoAre) {
  for (size_t i = 0; i < SyncOverlap::kMost; i++) StartLeader(i);
  BackgroundCall& covered = StartWait(SyncOverlap::kMost);  // by the last one
  covered.AwaitParked();
  BackgroundCall& next = StartWait(Commit());
  next.AwaitParked();
  log_.Finish(0);
  ASSERT_TRUE(log_.AwaitCalls(SyncOverlap::kMost + 1));
  EXPECT_EQ(log_.call(SyncOverlap::kMost).thread, next.thread_id());
  EXPECT_FALSE(covered.returned());
}

// Each would have been told of what the other lost.
TEST_F(CoordinatorLeadersTest, ASuccessStandsBesideASyncThatBeganLater) {
  BackgroundCall& good = StartLeader(0);
  BackgroundCall& bad = StartLeader(1);
  log_.Finish(0);
  EXPECT_EQ(good.Result(), 0);
  log_.Finish(1, kError);
  EXPECT_EQ(bad.Result(), kError);
  EXPECT_EQ(many_.durable(), 1u);
  EXPECT_TRUE(many_.IsDurable(1));
}

TEST_F(CoordinatorLeadersTest, ASuccessStandsBesideASyncThatBeganEarlier) {
  BackgroundCall& bad = StartLeader(0);
  BackgroundCall& good = StartLeader(1);
  log_.Finish(1);
  EXPECT_EQ(good.Result(), 0);
  log_.Finish(0, kError);
  EXPECT_EQ(bad.Result(), 0) << "its commit was durable before its sync failed";
  EXPECT_EQ(many_.failure(), kError);
  EXPECT_EQ(many_.durable(), 2u);
  Recover();
  log_.StopHolding();
  const Lsn next = Commit();
  EXPECT_EQ(many_.WaitDurable(next, &own_), 0);
}

TEST_F(CoordinatorLeadersTest, AFailureTakesAllThatAreUnderWay) {
  for (size_t i = 0; i < 3; i++) StartLeader(i);
  BackgroundCall& follower = StartWait(1);
  follower.AwaitParked();
  log_.Finish(1, kError);
  EXPECT_EQ(calls_[1].Result(), kError);
  EXPECT_EQ(follower.Result(), kError);
  log_.Finish(2);
  EXPECT_EQ(calls_[2].Result(), kError);
  Recover();
  const Lsn next = Commit();
  BackgroundCall& after = StartWait(next);
  ASSERT_TRUE(log_.AwaitCalls(4)) << "beside one from before the failure";
  log_.Finish(0);
  EXPECT_EQ(calls_[0].Result(), kError);
  EXPECT_FALSE(many_.IsDurable(next));
  EXPECT_FALSE(after.returned());
  log_.Finish(3);
  EXPECT_EQ(after.Result(), 0);
}

// It may be told nothing of a failure of which the other one has been told already.
TEST_F(CoordinatorLeadersTest, ASuccessAwaitsASyncFromBeforeItsLogWasOpened) {
  for (int outcome : {0, kError}) {
    const size_t calls = log_.calls();
    BackgroundCall& other = StartLeader(calls);
    OwnLog late(&log_, many_);
    const Lsn lsn = Commit();
    BackgroundCall& leader = StartWait(lsn, &late);
    ASSERT_TRUE(log_.AwaitCalls(calls + 2));
    log_.EndOnDevice(calls, outcome);
    log_.Finish(calls + 1);
    leader.AwaitParked();
    EXPECT_FALSE(leader.returned());
    EXPECT_FALSE(many_.IsDurable(lsn));
    log_.Finish(calls, outcome);
    EXPECT_EQ(other.Result(), outcome);
    EXPECT_EQ(leader.Result(), outcome);
  }
}

// Nor where the other one goes through a handle that is perhaps its own.
TEST_F(CoordinatorLeadersTest, ASuccessAwaitsASyncThroughABorrowedHandle) {
  for (int outcome : {0, kError}) {
    const size_t calls = log_.calls();
    const Lsn lsn = Commit();
    BackgroundCall& leader = StartWait(lsn);
    ASSERT_TRUE(log_.AwaitCalls(calls + 1));
    BackgroundCall& other = StartSyncNow(&log_);
    ASSERT_TRUE(log_.AwaitCalls(calls + 2));
    log_.EndOnDevice(calls + 1, outcome);
    log_.Finish(calls);
    leader.AwaitParked();
    EXPECT_FALSE(leader.returned());
    EXPECT_FALSE(many_.IsDurable(lsn));
    log_.Finish(calls + 1, outcome);
    EXPECT_EQ(other.Result(), outcome);
    EXPECT_EQ(leader.Result(), outcome);
  }
}

TEST_F(CoordinatorLeadersTest, ASyncThroughABorrowedHandleAwaitsTheOthers) {
  for (int outcome : {0, kError}) {
    const size_t calls = log_.calls();
    BackgroundCall& other = StartLeader(calls);
    const Lsn lsn = Commit();
    BackgroundCall& leader = StartWait(lsn, &log_);
    ASSERT_TRUE(log_.AwaitCalls(calls + 2));
    log_.EndOnDevice(calls, outcome);
    log_.Finish(calls + 1);
    leader.AwaitParked();
    EXPECT_FALSE(leader.returned());
    EXPECT_FALSE(many_.IsDurable(lsn));
    log_.Finish(calls, outcome);
    EXPECT_EQ(other.Result(), outcome);
    EXPECT_EQ(leader.Result(), outcome);
  }
}

// It has nothing to add, whoever waits.
TEST_F(CoordinatorLeadersTest, NobodyFollowsASyncFromBeforeAFailure) {
  const Lsn counted = many_.CountWritten();
  BackgroundCall& old = StartLeader(0);
  BackgroundCall& bad = StartLeader(1);
  log_.Finish(1, kError);
  EXPECT_EQ(bad.Result(), kError);
  Recover();
  BackgroundCall& waiter = calls_.emplace_back([&] { return many_.WaitSynced(counted, &own_); });
  ASSERT_TRUE(log_.AwaitCalls(3));
  log_.Finish(2);
  EXPECT_EQ(waiter.Result(), 0);
  EXPECT_FALSE(old.returned());
  log_.Finish(0);
  EXPECT_EQ(old.Result(), kError);
}

// What a coordinator learns by itself: commits in flight six at a time, syncs of a millisecond, as
// many at a time as may be.
class CoordinatorOverlapLearningTest : public CoordinatorFixture {
 protected:
  CoordinatorOverlapLearningTest() { coordinator_.SetPolicy(FlushPolicy::Auto()); }

  void SyncOften(int syncs, Coordinator::Log* log) {
    log_.SetDuringSync([this] { clock_.Advance(kMillisecond); });
    for (int i = 0; i < syncs; i++) {
      for (int commit = 0; commit < kInFlight; commit++) {
        clock_.Advance(20 * kMicrosecond);
        Commit();
      }
      EXPECT_EQ(coordinator_.WaitDurable(coordinator_.appended(), log), 0);
    }
  }
  // One sync goes on for as long as all of these.
  void SyncOftenBesideAnother(int syncs, Coordinator::Log* log) {
    log_.HoldSyncs();
    for (int commit = 0; commit < kInFlight; commit++) Commit();
    const size_t calls = log_.calls();
    OwnLog another(&log_, coordinator_);
    BackgroundCall& other = calls_.emplace_back(
        [&] { return coordinator_.WaitDurable(coordinator_.appended(), &another); });
    ASSERT_TRUE(log_.AwaitCalls(calls + 1));
    log_.StopHolding();
    SyncOften(syncs, log);
    log_.Finish(calls);
    EXPECT_EQ(other.Result(), 0);
  }

  static constexpr int kInFlight = 6;
};

TEST_F(CoordinatorOverlapLearningTest, TriesAndKeepsWhatPays) {
  OwnLog log(&log_, coordinator_);
  SyncOften(SyncOverlap::kShortestPause, &log);
  EXPECT_EQ(stats_.overlapped_syncs.Get(), 0);
  SyncOftenBesideAnother(SyncOverlap::kTrial, &log);
  EXPECT_EQ(stats_.overlapped_syncs.Get(), SyncOverlap::kTrial);
  SyncOftenBesideAnother(3, &log);
  EXPECT_EQ(stats_.overlapped_syncs.Get(), SyncOverlap::kTrial + 3);
}

// A success would have to wait for the others: nothing would be gained.
TEST_F(CoordinatorOverlapLearningTest, NotWhereErrorsMayBeToldToOneHandleOnly) {
  SyncOften(2 * SyncOverlap::kShortestPause, &log_);
  log_.HoldSyncs();
  const size_t calls = log_.calls();
  for (int commit = 0; commit < kInFlight; commit++) Commit();
  StartWait(coordinator_.appended());
  ASSERT_TRUE(log_.AwaitCalls(calls + 1));
  BackgroundCall& follower = StartWait(Commit());
  follower.AwaitParked();
  EXPECT_EQ(log_.calls(), calls + 1);
}

}  // namespace
}  // namespace groupcommit::testing
