#include "workload.h"

#include <algorithm>
#include <latch>
#include <memory>
#include <numeric>
#include <thread>

#include "client.h"
#include "reader.h"
#include "resource_usage.h"
#include "sqlite_handle.h"

namespace groupcommit::bench {
namespace {

using Readers = std::vector<std::unique_ptr<Reader>>;
using Task = std::function<void(const End&)>;

Clients NewClients(const WorkloadOptions& options, Engine* engine) {
  Clients clients;
  for (int id = 0; id < WritersOf(options.mix, options.connections); ++id) {
    clients.push_back(std::make_unique<Client>(id, options.mix, engine->NewCommitter(id)));
  }
  return clients;
}

Readers NewReaders(const WorkloadOptions& options, const Clients& clients) {
  const std::string uri = UriOf(options.path, options.vfs, options.uri_parameters);
  Readers readers;
  for (int id = static_cast<int>(clients.size()); id < options.connections; ++id) {
    Connection db = Open(uri, SQLITE_OPEN_READWRITE);
    sqlite3_busy_timeout(db.get(), options.busy_timeout_ms);
    readers.push_back(std::make_unique<Reader>(options.mix, id, std::move(db), clients));
  }
  return readers;
}

std::vector<Task> TasksOf(const Clients& clients, const Readers& readers) {
  std::vector<Task> tasks;
  for (const auto& client : clients) {
    tasks.emplace_back([c = client.get()](const End& end) { c->Run(end); });
  }
  for (const auto& reader : readers) {
    tasks.emplace_back([r = reader.get()](const End& end) { r->Run(end); });
  }
  return tasks;
}

// The threads of a run, held at the start until Start(). Joined when the object goes, and never
// left waiting for a Start() that did not come because one of them could not be created.
class Threads {
 public:
  Threads(std::vector<Task> tasks, const std::atomic<bool>* cancel)
      : tasks_(std::move(tasks)),
        ready_(static_cast<ptrdiff_t>(tasks_.size())),
        end_{Clock::time_point::min(), cancel} {
    try {
      for (const Task& task : tasks_) {
        threads_.emplace_back([this, &task] {
          ready_.count_down();
          go_.wait();
          task(end_);
        });
      }
    } catch (...) {
      go_.count_down();  // With a deadline in the past.
      Join();
      throw;
    }
  }
  ~Threads() { Join(); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  // Waits until all threads are there. To be called once, before Start().
  void AwaitAll() { ready_.wait(); }

  // Lets them go. To be called once.
  Clock::time_point Start(std::chrono::nanoseconds duration) {
    const auto start = Clock::now();
    end_.deadline = start + duration;
    go_.count_down();
    return start;
  }

  // Ends although writers may sleep in the busy handler: nobody begins another commit, so each gets
  // the lock in the end. They sleep in step, though, 100 ms at a time, and few get it each time.
  void Join() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  const std::vector<Task> tasks_;
  std::latch ready_;
  std::latch go_{1};
  End end_;
  std::vector<std::thread> threads_;
};

int64_t LiveCommits(const Clients& clients) {
  int64_t sum = 0;
  for (const auto& client : clients) sum += client->live_commits();
  return sum;
}

void ReportUntil(Clock::time_point start, Clock::time_point deadline, const Clients& clients,
                 const WorkloadOptions& options) {
  for (auto now = Clock::now(); now < deadline; now = Clock::now()) {
    if (options.cancel != nullptr && *options.cancel) return;
    if (options.on_progress) {
      options.on_progress(
          {std::chrono::duration<double>(now - start).count(), LiveCommits(clients)});
    }
    std::this_thread::sleep_until(std::min(deadline, now + std::chrono::milliseconds(100)));
  }
}

void SummarizeClients(const Clients& clients, WorkloadResult* result) {
  LatencyHistogram latencies;
  std::chrono::nanoseconds latest{0};
  result->least_served = clients.front()->live_commits();
  for (const auto& client : clients) {
    result->commits += client->live_commits();
    result->least_served = std::min(result->least_served, client->live_commits());
    result->most_served = std::max(result->most_served, client->live_commits());
    result->busy_errors += client->busy_errors();
    result->acknowledged.push_back(client->acknowledged());
    latencies.Merge(client->latencies());
    latest = std::max(latest, client->late());
    if (result->error.empty()) result->error = client->error();
  }
  result->p50_us = latencies.QuantileUs(0.5);
  result->p99_us = latencies.QuantileUs(0.99);
  result->p999_us = latencies.QuantileUs(0.999);
  result->max_us = latencies.max_us();
  const double latest_us = std::chrono::duration<double, std::micro>(latest).count();
  result->max_was_cut = latest_us > 0 && latest_us >= result->max_us;
}

void SummarizeReaders(const Readers& readers, WorkloadResult* result) {
  LatencyHistogram latencies;
  for (const auto& reader : readers) {
    latencies.Merge(reader->latencies());
    if (result->error.empty()) result->error = reader->error();
  }
  result->reads = static_cast<int64_t>(latencies.count());
  result->read_p50_us = latencies.QuantileUs(0.5);
  result->read_p99_us = latencies.QuantileUs(0.99);
  result->read_max_us = latencies.max_us();
}

// What was used up, by each commit. Late commits are counted here: they had their share.
struct Costs {
  ResourceUsage usage;
  std::optional<int64_t> syncs;
};

Costs CostsSoFar(Engine* engine) { return {ResourceUsage::Now(), engine->CountSyncs()}; }

void SummarizeCosts(const Costs& before, const Costs& after, WorkloadResult* result) {
  const auto& acknowledged = result->acknowledged;
  const auto commits =
      static_cast<double>(std::accumulate(acknowledged.begin(), acknowledged.end(), int64_t{0}));
  if (commits == 0) return;
  const ResourceUsage used = after.usage.Since(before.usage);
  result->cpu_us_per_commit = used.cpu_us / commits;
  result->context_switches_per_commit = used.context_switches / commits;
  if (before.syncs && after.syncs) {
    result->syncs_per_commit = static_cast<double>(*after.syncs - *before.syncs) / commits;
  }
}

}  // namespace

WorkloadResult RunWorkload(const WorkloadOptions& options) {
  const std::unique_ptr<Engine> engine = options.engine(options);
  const Clients clients = NewClients(options, engine.get());
  const Readers readers = NewReaders(options, clients);
  Costs before;
  {
    Threads threads(TasksOf(clients, readers), options.cancel);
    threads.AwaitAll();
    before = CostsSoFar(engine.get());
    const auto start = threads.Start(options.duration);
    ReportUntil(start, start + options.duration, clients, options);
    if (options.disk != nullptr) options.disk->SetHurry(true);
    threads.Join();
    if (options.disk != nullptr) options.disk->SetHurry(false);
  }
  const Costs after = CostsSoFar(engine.get());
  WorkloadResult result;
  SummarizeClients(clients, &result);
  SummarizeReaders(readers, &result);
  SummarizeCosts(before, after, &result);
  result.commits_per_second =
      static_cast<double>(result.commits) / std::chrono::duration<double>(options.duration).count();
  result.largest_wal_bytes = engine->LogBytes();
  result.cancelled = options.cancel != nullptr && *options.cancel;
  return result;
}

}  // namespace groupcommit::bench
