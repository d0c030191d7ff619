// WriterQueue: the queue in front of SQLite that applications write by hand today.
//
// The threads of the application put their rows into a queue; one thread, the only one with a
// connection that writes, takes all that are queued, commits them in ONE transaction, and wakes
// those who wait for them. While it is at it, the next batch gathers by itself: nobody waits for
// company. It is the rival to beat, at a price of its own: the rows of a batch live or die
// together, and the application cannot read and write in one transaction.
#ifndef GROUPCOMMIT_BENCH_WRITER_QUEUE_H_
#define GROUPCOMMIT_BENCH_WRITER_QUEUE_H_

#include <semaphore.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "mix.h"
#include "sqlite_handle.h"

namespace groupcommit::bench {

// One for each thread that waits, so that a wake-up wakes one. Not std::binary_semaphore and not
// the wait of std::atomic, which give way four times before they sleep: with these the queue took
// three times the context switches and a quarter more processor time.
class Semaphore {
 public:
  // Throws std::system_error where the system has no such semaphores (macOS).
  Semaphore();
  ~Semaphore() { sem_destroy(&semaphore_); }
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;

  void Post() { sem_post(&semaphore_); }
  void Wait();

 private:
  sem_t semaphore_;
};

class WriterQueue {
 public:
  // A place in the queue, for one row at a time. Lives as long as the queue: the writer may still
  // be about to wake its thread when that has gone on already.
  class alignas(64) Place {
   public:
    const std::string& error() const { return error_; }

   private:
    friend class WriterQueue;

    const Row* row_ = nullptr;
    // Written by the writer before it posts `done_`, read after the wait for it.
    int result_ = 0;  // SQLite's result code.
    std::string error_;
    Semaphore done_;
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
