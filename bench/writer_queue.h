// WriterQueue: the queue in front of SQLite that applications write by hand today.
//
// The threads of the application put their rows into a queue; one thread, the only one with a
// connection that writes, takes all that are queued, commits them in ONE transaction, and wakes
// those who wait for them. While it is at it, the next batch gathers by itself: nobody waits for
// company. It is the rival to beat, at a price of its own: the rows of a batch live or die
// together, and the application cannot read and write in one transaction.
#ifndef GROUPCOMMIT_BENCH_WRITER_QUEUE_H_
#define GROUPCOMMIT_BENCH_WRITER_QUEUE_H_

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "mix.h"
#include "sqlite_handle.h"

namespace groupcommit::bench {

class WriterQueue {
 public:
  // A place in the queue, for one row at a time. Lives as long as the queue: the writer may still
  // be about to wake its thread when that has gone on already.
  class alignas(64) Place {
   public:
    const std::string& error() const { return error_; }

   private:
    friend class WriterQueue;
    static constexpr int kWaiting = -1;

    const Row* row_ = nullptr;
    std::string error_;  // Written before result_.
    // SQLite's result code. Stored with release by the writer, read with acquire by the one who
    // waits on it; nobody else does, so that a wake-up wakes one thread.
    std::atomic<int> result_{kWaiting};
  };

  // Starts the writer thread. Throws std::runtime_error if the tables are not there.
  WriterQueue(Mix mix, Connection db);
  // REQUIRES: nobody is in Commit().
  ~WriterQueue();
  WriterQueue(const WriterQueue&) = delete;
  WriterQueue& operator=(const WriterQueue&) = delete;

  // Returns SQLITE_OK once `row` is durable, or the error of the transaction that it was in.
  int Commit(const Row& row, Place* place);

 private:
  void Write();
  bool Take(std::vector<Place*>* batch);

  const Connection db_;
  Transaction transaction_;

  std::mutex mutex_;
  std::condition_variable arrival_;
  std::vector<Place*> queued_;  // Guarded by mutex_, like these:
  bool idle_ = false;           // The writer waits for `arrival_`.
  bool stop_ = false;

  std::thread writer_;
};

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_WRITER_QUEUE_H_
