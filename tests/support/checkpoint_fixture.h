// CheckpointTest: a fixture for checkpoints that hold writers up, and for a log that is as long as
// it takes.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_CHECKPOINT_FIXTURE_H_
#define GROUPCOMMIT_TESTS_SUPPORT_CHECKPOINT_FIXTURE_H_

#include <sqlite3.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "support/queue_of.h"
#include "support/shim_test.h"

namespace groupcommit::testing {

inline constexpr int kAutocheckpoint = 50;

class CheckpointTest : public ShimTest {
 protected:
  Db OpenOne() {
    Db db = OpenWithTable();
    db.SetBusyTimeout(120'000);
    db.ExecOk("PRAGMA wal_autocheckpoint=" + std::to_string(kAutocheckpoint));
    return db;
  }

  // `n` threads with a connection each make `commits` commits together.
  void Write(int n, int commits) {
    std::atomic<int> left{commits};
    std::vector<std::thread> threads;
    for (int i = 0; i < n; i++) {
      threads.emplace_back([&] {
        Db own = OpenOne();
        while (left.fetch_sub(1) > 0) own.ExecOk("INSERT INTO t VALUES(1)");
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  int64_t LogFrames() const {
    return (static_cast<int64_t>(std::filesystem::file_size(path() + "-wal")) - 32) / (4096 + 24);
  }

  // Frames of the log that are in use. Copies what can be copied.
  static int64_t FramesInUse(Db& db) {
    int frames = -1;
    sqlite3_wal_checkpoint_v2(db.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, &frames, nullptr);
    return frames;
  }

  // The same by the header in the shared memory: wal.c: WalIndexHdr.mxFrame.
  uint32_t LogFramesInHeader() const {
    uint32_t frames = 0;
    std::ifstream index(path() + "-shm", std::ios::binary);
    index.seekg(16).read(reinterpret_cast<char*>(&frames), sizeof(frames));
    return frames;
  }

  static void ExpectNobodyIsCounted(const Db& db) {
    EXPECT_EQ(GateOf(db).writers(), 0);
    EXPECT_EQ(GateOf(db).leaving(), 0);
    EXPECT_EQ(GateOf(db).log_readers(), 0);
    EXPECT_EQ(QueueOf(db).waiting(), 0);
    EXPECT_FALSE(QueueOf(db).IsKeptForLong());
  }

  // Counts checkpoints, and those that held writers up. The first without those that nobody skips:
  // beside which nobody writes; and, perhaps, automatic ones that are not taken for one, as the
  // thread had no processor for 1 ms.
  void CountGates(const Db& db) {
    storage_.SetObserver([this, &queue = QueueOf(db), &gate = GateOf(db)](const Call& call) {
      using SteadyClock = std::chrono::steady_clock;
      constexpr std::chrono::microseconds kLate(500);
      static thread_local SteadyClock::time_point committed;
      static thread_local bool is_skipped_never;
      if (call.op == Op::kFileControl && call.flags == SQLITE_FCNTL_COMMIT_PHASETWO) {
        committed = SteadyClock::now();
      }
      if (call.op != Op::kShmLock || call.offset != 1 || call.amount != 1) return;
      if (call.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE)) {
        const bool is_alone = gate.writers() == 0 && queue.waiting() == 0;
        is_skipped_never = is_alone || SteadyClock::now() - committed > kLate;
      }
      if (call.flags != (SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE)) return;
      if (!is_skipped_never) checkpoints_++;
      if (queue.IsKeptForLong()) gates_++;
    });
  }

  // A checkpoint that has closed the gate, and stays in the middle until its sync is let go. (The
  // gate opens after some time all the same.)
  std::future<int> StartCheckpoint(Db& db) {
    WriteQueue& queue = QueueOf(db);
    const int64_t begin = queue.clock().NowNanos();
    storage_.HoldSyncs(FileKind::kMainDb);
    std::future<int> result = ExecAsync(db, "PRAGMA wal_checkpoint");
    EXPECT_TRUE(storage_.WaitForHeldSyncs(1));
    EXPECT_GE(queue.kept_until(), begin + CheckpointGate::kClosedNanos) << "it holds nobody back";
    return result;
  }

  // Makes the log so long that the next checkpoint holds writers back.
  // (Once more if an automatic one is not taken for one, as the thread had no processor for 1 ms.)
  void MakeCheckpointDue(Db& db) {
    do {
      db.ExecOk("PRAGMA wal_checkpoint(TRUNCATE)");
      Db reader = OpenOne();
      reader.ExecOk("BEGIN; SELECT * FROM t");  // and this one does not get through
      db.ExecOk("PRAGMA wal_autocheckpoint=1; INSERT INTO t VALUES(1)");
      db.ExecOk("PRAGMA wal_autocheckpoint=0");
      reader.ExecOk("COMMIT");
      for (int i = 0; i < 20; i++) db.ExecOk("INSERT INTO t VALUES(1)");
    } while (!IsDue(db));
  }

  // Would a checkpoint hold writers back now? REQUIRES: the log has not started over.
  bool IsDue(const Db& db) const {
    std::ifstream log(path() + "-wal", std::ios::binary);
    uint64_t salts = 0;
    log.seekg(16);
    log.read(reinterpret_cast<char*>(&salts), sizeof(salts));
    const auto frames = static_cast<uint32_t>(LogFrames());
    return GateOf(db).OnBegin(frames, salts, 0, false) == CheckpointGate::Advice::kHoldWriters;
  }

  std::atomic<int64_t> checkpoints_{0};
  std::atomic<int64_t> gates_{0};
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_CHECKPOINT_FIXTURE_H_
