// What the parts cost by themselves, in nanoseconds: the coordinator, the write queue, the
// statistics, and one commit where no sync hides what the rest of it takes.
//
//   --dir=DIR   where files are created; on a disk. Default: the current directory
//
// and Google Benchmark's options.

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <thread>

#include "coordinator.h"
#include "delay_vfs.h"
#include "directory_main.h"
#include "disk.h"
#include "groupcommit.h"
#include "latency_histogram.h"
#include "mix.h"
#include "sqlite_handle.h"
#include "statistics.h"
#include "write_queue.h"

namespace groupcommit::bench {
namespace {

namespace fs = std::filesystem;

fs::path directory;  // Set before the first benchmark begins.

// --- The coordinator -----------------------------------------------------------------------------

class NoLog final : public Coordinator::Log {
 public:
  int Sync(Lsn, Lsn) override { return 0; }
};

// A log of 4 MB that is written from the start again and again, as a WAL is.
class FileLog final : public Coordinator::Log {
 public:
  explicit FileLog(const fs::path& path)
      : path_(path), fd_(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) {
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), path.string());
    for (int i = 0; i < kBlocks; ++i) Append();
    fdatasync(fd_);
  }
  ~FileLog() {
    close(fd_);
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  FileLog(const FileLog&) = delete;
  FileLog& operator=(const FileLog&) = delete;

  void Append() {
    static constexpr std::array<char, 4096> kBlock = {'g', 'c'};
    const auto offset = static_cast<off_t>(next_++ % kBlocks * int64_t{kBlock.size()});
    if (pwrite(fd_, kBlock.data(), kBlock.size(), offset) != int64_t{kBlock.size()}) {
      throw std::system_error(errno, std::generic_category(), path_.string());
    }
  }

  int Sync(Lsn, Lsn) override { return fdatasync(fd_); }

 private:
  static constexpr int64_t kBlocks = 1024;
  const fs::path path_;
  const int fd_;
  int64_t next_ = 0;
};

struct LoneCoordinator {
  LoneCoordinator() { coordinator.SetPolicy(FlushPolicy::Auto()); }
  Statistics statistics;
  Coordinator coordinator{SteadyClock::Get(), &statistics};
};

// A commit that a sync of somebody else has covered: what most members of a batch go through.
void WaitDurableCovered(benchmark::State& state) {
  LoneCoordinator lone;
  NoLog log;
  const Lsn lsn = lone.coordinator.Append(0);
  lone.coordinator.WaitDurable(lsn, &log);
  for ([[maybe_unused]] auto _ : state) {
    benchmark::DoNotOptimize(lone.coordinator.WaitDurable(lsn, &log));
  }
}
BENCHMARK(WaitDurableCovered)->Name("coordinator/already_durable");

// A leader without followers, whose sync takes no time: all that the coordinator does for it.
void LeadAlone(benchmark::State& state) {
  LoneCoordinator lone;
  NoLog log;
  for ([[maybe_unused]] auto _ : state) {
    const Lsn lsn = lone.coordinator.Append(0);
    benchmark::DoNotOptimize(lone.coordinator.WaitDurable(lsn, &log));
  }
}
BENCHMARK(LeadAlone)->Name("coordinator/lead_alone/no_sync");

// The same on a file, by turns with the bare write and sync that it consists of: the disk changes
// its mind about how long a sync takes more often than two benchmarks end.
void LeadAloneOnFile(benchmark::State& state) {
  LoneCoordinator lone;
  FileLog log(directory / "log");
  LatencyHistogram bare;
  LatencyHistogram led;
  const auto timed = [](LatencyHistogram* latencies, const auto& sync) {
    const auto start = std::chrono::steady_clock::now();
    const bool ok = sync();
    latencies->Record(std::chrono::steady_clock::now() - start);
    return ok;
  };
  for ([[maybe_unused]] auto _ : state) {
    const bool bare_ok = timed(&bare, [&] {
      log.Append();
      return log.Sync(0, 0) == 0;
    });
    const bool led_ok = timed(&led, [&] {
      log.Append();
      return lone.coordinator.WaitDurable(lone.coordinator.Append(0), &log) == 0;
    });
    if (!bare_ok || !led_ok) state.SkipWithError("the sync failed");
  }
  state.counters["bare_p50_us"] = bare.QuantileUs(0.5);
  state.counters["led_p50_us"] = led.QuantileUs(0.5);
}
BENCHMARK(LeadAloneOnFile)->Name("coordinator/lead_alone/file")->UseRealTime();

// --- The write queue -----------------------------------------------------------------------------

void AcquireAndRelease(benchmark::State& state) {
  WriteQueue queue(SteadyClock::Get());
  for ([[maybe_unused]] auto _ : state) {
    benchmark::DoNotOptimize(queue.TryAcquire(1));
    queue.Release(1);
  }
}
BENCHMARK(AcquireAndRelease)->Name("write_queue/acquire_and_release");

constexpr int64_t kForLong = 60'000'000'000;

// Takes the lock, in line behind whoever has it.
void AcquireInLine(WriteQueue* queue, WriteQueue::Writer writer) {
  while (!queue->TryAcquire(writer)) {
    queue->AwaitTurn(writer, queue->NewTicket(), queue->clock().NowNanos() + kForLong, true);
  }
}

// Two threads that hand the lock to each other. One iteration is a hand-over there and one back.
void HandOver(benchmark::State& state) {
  constexpr WriteQueue::Writer kMe = 1;
  constexpr WriteQueue::Writer kOther = 2;
  WriteQueue queue(SteadyClock::Get());
  std::atomic<bool> stop{false};
  const auto release_when_awaited = [&](WriteQueue::Writer writer) {
    while (queue.waiting() == 0 && !stop) std::this_thread::yield();
    queue.Release(writer);
  };
  AcquireInLine(&queue, kMe);
  std::thread other([&] {
    while (!stop) {
      AcquireInLine(&queue, kOther);
      release_when_awaited(kOther);
    }
  });
  for ([[maybe_unused]] auto _ : state) {
    release_when_awaited(kMe);
    AcquireInLine(&queue, kMe);
  }
  stop = true;
  queue.Release(kMe);
  other.join();
}
BENCHMARK(HandOver)->Name("write_queue/hand_over_and_back")->UseRealTime();

// --- Statistics ----------------------------------------------------------------------------------

void RecordLatency(benchmark::State& state) {
  groupcommit::LatencyHistogram histogram;
  int64_t nanos = 1;
  for ([[maybe_unused]] auto _ : state) {
    histogram.Record(nanos);
    nanos = (nanos * 5 + 1) & 0xffffff;
  }
}
BENCHMARK(RecordLatency)->Name("statistics/record_latency");

// --- A whole commit, without its sync ------------------------------------------------------------

// The CPU column is the one to read: the checkpoints between them do sync the database file.
void CommitWithoutSync(benchmark::State& state, bool shim) {
  const DelayVfs no_sync("micro-no-sync", DelayVfs::kSkipSync);
  constexpr const char* kShim = "micro-shim";
  if (groupcommit_register(kShim, no_sync.name().c_str(), 0, nullptr) != SQLITE_OK) {
    state.SkipWithError("cannot register the VFS");
    return;
  }
  const TemporaryDirectory files(directory, "commit-");
  {
    const Connection db =
        Open(UriOf((files.path() / "micro.db").string(), shim ? kShim : no_sync.name()),
             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    Execute(db.get(), "PRAGMA journal_mode=WAL");
    Execute(db.get(), "PRAGMA synchronous=FULL");
    CreateTables(Mix::kInsert, db.get(), 1);
    Transaction transaction(Mix::kInsert, db.get());
    std::array<unsigned char, 100> payload{};
    int64_t seq = 0;
    for ([[maybe_unused]] auto _ : state) {
      if (transaction.Commit({0, seq++, payload}) != SQLITE_OK) {
        state.SkipWithError(transaction.error().c_str());
      }
    }
  }
  groupcommit_unregister(kShim);
}
BENCHMARK_CAPTURE(CommitWithoutSync, stock, false)->Name("commit/no_sync/stock");
BENCHMARK_CAPTURE(CommitWithoutSync, shim, true)->Name("commit/no_sync/shim");

}  // namespace
}  // namespace groupcommit::bench

int main(int argc, char** argv) {
  return groupcommit::bench::RunInDirectory(argc, argv, "micro_bench",
                                            &groupcommit::bench::directory);
}
